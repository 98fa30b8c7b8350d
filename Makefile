# Every command of the project. Needs make, a Python >= 3.11 with venv and pip, and for the JavaScript tests Node.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first of these that is Python 3.11 or newer makes .venv; `make install PYTHON=...` names another.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
BIN := .venv/bin
STAMP := .venv/.installed
JS := tests/support/js
PEERS := benchmarks/peers

.PHONY: help install dev test test-unit bench soak containers chaos lint format types layers check lock migration clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-11s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv with everything for running and testing

$(STAMP): requirements-dev.lock pyproject.toml
	@set -e; \
	if [ -n "$(PYTHON)" ]; then candidates="$(PYTHON)"; else candidates="$(PYTHONS)"; fi; \
	for python in $$candidates; do \
	  if "$$python" -c '$(RECENT)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "chatserver needs Python 3.11 or newer; tried: $$candidates. Install one, or name it: make install PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c '$(RECENT)' 2>/dev/null; then \
	  echo "Making .venv with $$($$found --version)"; \
	  rm -rf .venv; \
	  "$$found" -m venv .venv || { \
	    rm -rf .venv; \
	    echo "$$found cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

dev: install ## Start everything: database, Redis, server, workers, demo client (ARGS="--port 0")
	@exec $(BIN)/chatserver dev $(ARGS)

test: install ## Run every test; those with the JavaScript client need Node (ARGS="-k room")
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
	  $(MAKE) --no-print-directory $(JS)/node_modules/.installed && exec .ci/tests $(ARGS); \
	elif [ -n "$$CI" ]; then \
	  echo "CI must run the tests of the JavaScript client, and node or npm is missing." >&2; exit 1; \
	else \
	  echo "node or npm is missing: the tests that drive the JavaScript client are LEFT OUT. Install Node 20 or newer to run them."; \
	  exec $(BIN)/pytest -m "not js" $(ARGS); \
	fi

$(JS)/node_modules/.installed: $(JS)/package-lock.json $(JS)/package.json
	npm --prefix $(JS) ci --no-audit --no-fund
	@touch $@

test-unit: install ## Run the tests that need no database, no network and no Node
	$(BIN)/pytest tests/unit tests/architecture $(ARGS)

bench: install $(PEERS)/node_modules/.installed ## Compare with Node's Socket.IO and python-socketio (ARGS=--quick)
	@exec $(BIN)/python -m benchmarks $(ARGS)

$(PEERS)/node_modules/.installed: $(PEERS)/package-lock.json $(PEERS)/package.json
	npm --prefix $(PEERS) ci --no-audit --no-fund
	@touch $@

soak: install $(JS)/node_modules/.installed ## Watch memory under load for half an hour (MINUTES=5), then run the slow tests
	$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),30)
	SNAPSHOT_SEEDS=20 READ_SEEDS=20 STREAM_SEEDS=3000 $(BIN)/pytest -m soak tests/integration $(ARGS)
	FUZZ_TIMES=30 FUZZ_SEED=$$$$ $(BIN)/pytest tests/e2e/test_documented_answers.py $(ARGS)
	SNAPSHOT_SEEDS=20 READ_SEEDS=20 STREAM_SEEDS=3000 $(BIN)/pytest tests/integration/chat/test_catch_up.py \
	  tests/integration/chat/test_reads.py tests/unit/assistant/test_stream_protocol.py

containers: install $(JS)/node_modules/.installed ## Lint the Dockerfile; start what docker-compose.yml starts, as processes
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi
	$(BIN)/pytest tests/architecture/test_containers.py tests/e2e/test_behind_nginx.py tests/e2e/test_compose.py $(ARGS)

chaos: install $(JS)/node_modules/.installed ## Rehearse every fault under load, an hour (ARGS=--brief, ARGS="--full --nodes 3 --seeds 5")
	KEY_STEPS=10000 $(BIN)/pytest tests/unit/api_keys/test_life.py
	$(BIN)/pytest tests/chaos/rehearse_*.py $(ARGS)

lint: install ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi  # there is none for every machine

format: install ## Mend style and format where a machine can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## Check types
	$(BIN)/mypy

layers: install ## Check who imports whom
	$(BIN)/lint-imports

check: lint types layers test ## What CI runs, in the same order

lock: ## Pin all dependencies again, after pyproject.toml changed (ARGS=--upgrade for newer ones)
	@command -v uv >/dev/null || { echo "make lock needs uv, which writes locks for all platforms at once: pip install uv" >&2; exit 1; }
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate $(ARGS) pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate $(ARGS) pyproject.toml --group dev -o requirements-dev.lock

migration: install ## Write a migration from what the models have and the migrations have not (m="what it does")
	@$(BIN)/python -m tests.support.new_migration "$$MESSAGE"
migration: export MESSAGE = $(m)

clean: ## Remove what the tools made (not .venv, not the data in .chatserver)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache $(JS)/node_modules $(PEERS)/node_modules
	find chatserver workers migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +
