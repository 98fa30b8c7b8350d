"""What a start loads: kept small, because every process of a deployment pays for it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOAD = """
import sys
from chatserver.cli.loading import load
load({module!r}, {member!r})
print("\\n".join(sorted(sys.modules)))
"""
LIST = """
import sys
from chatserver.cli.program import build
build(["--help"])
print("\\n".join(sorted(name.partition(".")[0] for name in sys.modules)))
"""
# Each of these is only needed for something that most processes never do.
NEVER = {
    *("alembic", "boto3", "numpy", "onnxruntime", "openai", "openpyxl", "docx", "pptx", "pypdf"),
    *("PIL", "email_validator", "lxml", "trafilatura", "tokenizers", "opentelemetry", "sentry_sdk"),
    *("requests", "rich", "valkey", "pypdfium2"),
}
# Nor does whoever only reads what there is, or starts something else.
HEAVY = {"sqlalchemy", "aiohttp", "socketio", "dramatiq", "sqlmodel", "pydantic", "structlog"}


def loaded(module: str, member: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", LOAD.format(module=module, member=member)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in ran.stdout.split()}


@pytest.mark.parametrize(
    ("module", "member"), [("chatserver.cli.serve", "serve"), ("workers.main", "main")]
)
def test_a_start_loads_only_what_it_needs(module: str, member: str) -> None:
    found = loaded(module, member)
    assert {"sqlalchemy", "aiohttp"} <= found
    assert found & NEVER == set()


def test_the_list_of_commands_needs_next_to_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIST], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(ran.stdout.split()) & (NEVER | HEAVY) == set()
