"""Nothing that a caller writes is run: no pattern of his, no template, and ours end on any text."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import chatserver
from tests.architecture.tree import ROOT, python_files

LONG = 50_000
# What evaluates text: none of it may be given a caller's.
ENGINES = {"jinja2", "mako", "chevron", "pystache", "django", "tornado", "genshi", "cheetah"}
# Read names of our own classes, while documents are written.
OF_OUR_OWN = "chatserver.transport.documents."
RUNNING = {"eval", "exec", "compile", "__import__"}


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(chatserver.__path__, "chatserver."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def patterns() -> dict[str, "re.Pattern[str]"]:
    return {
        f"{module.__name__}.{name}": value
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
        and isinstance(value.pattern, str)
        and not module.__name__.startswith(OF_OUR_OWN)
    }


PATTERNS = patterns()


def hostile(pattern: str) -> Iterator[str]:
    """Give long texts that almost match: repeats of what the pattern speaks of, then a spoiler."""
    spoken = sorted(set(re.sub(r"\\.", "", pattern)) - set("\\[](){}|^$?*+"))
    pieces = {"a", "0", " ", "\n", "-", ".", "/", "_", "a-", "a.", "0 ", "\u00e9", *spoken[:12]}
    for piece in sorted(pieces):
        text = (piece * LONG)[:LONG]
        yield text
        yield text + "\0"
        yield "!" + text + "!"


def used(name: str) -> set[str]:
    """Tell by which methods a pattern is used in its module."""
    module, _, variable = name.rpartition(".")
    source = inspect.getsource(importlib.import_module(module))
    return set(
        re.findall(rf"\b{variable}\.(fullmatch|match|search|subn?|finditer|findall)\(", source)
    )


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_no_pattern_of_ours_is_kept_busy_by_a_text(name: str) -> None:
    """D4: one that backtracks without end would not come back before the test is ended.

    Not how long it takes is looked at: a pattern either walks through such a text, or it would
    take days.
    """
    pattern, methods = PATTERNS[name], used(name)
    assert methods, "it is used where this test doesn't look: in another module, or as a text"
    for text in hostile(pattern.pattern):
        if "fullmatch" in methods:
            pattern.fullmatch(text)
        if "match" in methods:
            pattern.match(text)
        if methods - {"fullmatch", "match"}:
            pattern.findall(text)


def test_there_are_patterns_to_look_at() -> None:
    assert len(PATTERNS) > 15


def test_no_statement_takes_a_pattern() -> None:
    """D4: PostgreSQL is given no regular expression, neither a caller's nor ours."""
    operators = re.compile(r"\s!?~\*?\s|similar to|regexp_|rlike", re.IGNORECASE)
    found = [
        f"{file}: {text.strip()[:80]}"
        for file in python_files("chatserver", "workers")
        for text in statements(file)
        if operators.search(text)
    ]
    assert found == []


def statements(file: object) -> Iterator[str]:
    """Give the SQL of a file: long texts that begin like a statement."""
    for node in ast.walk(ast.parse((ROOT / str(file)).read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if re.match(r"\s*(with|select|insert|update|delete|create)\s", text, re.IGNORECASE):
                yield text


def test_nothing_evaluates_texts() -> None:
    """D9: there is no engine that could, and nothing of Python's own that does it."""
    found = []
    for file in python_files("chatserver", "workers"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                if node.module == "string":
                    names += [f"string.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = [node.func.id]
            banned = ENGINES | RUNNING | {"string.Template"}
            if any(name in banned or name.partition(".")[0] in ENGINES for name in names):
                found.append(f"{file}: {names}")
    assert found == []
