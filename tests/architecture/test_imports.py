"""What import-linter cannot say about imports."""

import graphlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import grimp
import pytest

from tests.architecture.tree import ROOT, modules

# One process imports the libraries once and then forks for each module, which takes a tenth of the
# time of a fresh interpreter each. Nothing of ours is loaded before the fork.
EACH_ALONE: Final = """
import importlib, os, sys, traceback
for library in sys.argv[1].split():
    importlib.import_module(library)
running = 0
for module in sys.stdin.read().split():
    if running >= (os.cpu_count() or 1):
        os.wait()
        running -= 1
    running += 1
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(module)
        except BaseException:
            print(f"--- {module} cannot be imported alone")
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
while running:
    os.wait()
    running -= 1
print("checked")
"""
UNSEEN_TABLES: Final = """
import chatserver.tables as tables
known = set(tables.METADATA.tables)
from tests.architecture.tree import import_all
import_all("chatserver", "workers")
print(len(known), sorted(set(tables.METADATA.tables) - known))
"""
LIBRARIES: Final = (
    "aiohttp alembic asyncpg dramatiq pydantic_settings redis.asyncio rich socketio "
    "sqlalchemy.ext.asyncio sqlmodel structlog typer numpy openai boto3 onnxruntime tokenizers "
    "pgvector.sqlalchemy docx pptx openpyxl pypdf pypdfium2 trafilatura semantic_text_splitter"
)


# Messages of the assistant's own are read in the shape that chat gives all of them.
# Training writes a document's state and passages in one transaction.
GUESTS: Final = {
    "chatserver.chat.repository": {"chatserver.assistant.generation.repository"},
    "chatserver.assistant.documents.repository": {
        "chatserver.assistant.training.trainer",
        "chatserver.assistant.training.sources",
    },
    # What it knows of large bots is what the indexes are built by.
    "chatserver.assistant.retrieval.repository": {"chatserver.assistant.retrieval.indexing"},
}


def test_no_module_imports_itself_by_a_detour() -> None:
    """So each can be imported alone; where a package itself imports, that is tried below."""
    graph = grimp.build_graph("chatserver", "workers", exclude_type_checking_imports=True)
    needs = {}
    for module in sorted(graph.modules):
        imported = graph.find_modules_directly_imported_by(module)
        # Python runs the packages above a module first.
        above = {up for each in imported for up in packages_of(each)} - {
            module,
            *packages_of(module),
        }
        needs[module] = imported | above
    assert len(needs) > 400
    graphlib.TopologicalSorter(needs).prepare()


def packages_of(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


@pytest.mark.timeout(180)
def test_every_module_of_a_package_that_imports_can_be_imported_alone() -> None:
    # `cli` imports, too, but stands above everything: nothing can lead back to it.
    names = [name for name in modules("chatserver") if name.startswith("chatserver.realtime.")]
    assert "chatserver.realtime.engine" in names
    checked = subprocess.run(
        [sys.executable, "-c", EACH_ALONE, LIBRARIES],
        cwd=ROOT,
        input="\n".join(names),
        capture_output=True,
        check=False,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert checked.stdout == "checked\n", checked.stdout + checked.stderr


def test_only_its_own_feature_queries_a_table() -> None:
    graph = grimp.build_graph("chatserver", "workers")
    repositories = graph.find_matching_modules("chatserver.**.repository")
    assert repositories
    for repository in repositories:
        feature = repository.removesuffix(".repository")
        files = (
            "service",
            "members",
            "catch_up",
            "writer",
            "erasing",
            "export",
            "rotation",
            "issuers",
            "checking",
            "targets",
            "replays",
            "planner",
            "sender",
            "history",
            "reception",
            # Of training: what reads, removes and copies documents in transactions of its own.
            *("trainer", "purging", "reembedding", "settling", "sources"),
            # Of an answer: how it ends, what it cost, what is written for it.
            *("endings", "usage", "saying"),
            "sanctions",
            "changes",
            "snapshots",
            # Queries themselves: they share statements with the repository.
            "messages",
            "pointers",
        )
        deciding = {f"{feature}.{file}" for file in files}
        builders = {"chatserver.bootstrap"} | graph.find_descendants("chatserver.wiring")
        allowed = deciding | builders | GUESTS.get(repository, set())
        assert graph.find_modules_that_directly_import(repository) <= allowed


def test_every_table_is_seen_by_migrations() -> None:
    # Alembic knows what tables.py imports; a table defined elsewhere would get no migration.
    listed = subprocess.run(
        [sys.executable, "-c", UNSEEN_TABLES], cwd=ROOT, capture_output=True, check=True, text=True
    )
    number, unseen = listed.stdout.strip().split(" ", 1)
    assert int(number) > 10
    assert unseen == "[]"
