"""What a migration must not do to a table that is in use, read from its source."""

import ast
import re
from collections.abc import Iterator
from typing import Final

_CREATED = re.compile(r"\bcreate table (?:if not exists )?(\w+)")
_INDEXED = re.compile(r"\bcreate (?:unique )?index (?!concurrently)(?:if not exists )?\S+ on (\w+)")
_ALTERED = re.compile(r"\balter table (?:only )?(\w+)(.*)", re.DOTALL)
_BACKFILL = re.compile(r"^\s*(?:update (\w+)|delete from (\w+))\b")
_LONG: Final = {
    re.compile(r"\block table\b"): "locks a table",
    re.compile(r"\bvacuum full\b"): "rewrites a table",
    re.compile(r"^\s*cluster\b"): "rewrites a table",
    re.compile(r"\btruncate\b"): "waits for every reader",
    re.compile(r"\breindex (?!.*concurrently)"): "stops writers",
}
_SLOW: Final = {
    re.compile(r"\balter (?:column )?\w+ (?:set data )?type\b"): "another type writes all anew",
    re.compile(r"\bset not null\b"): "looks through all rows: add_constraint() with a check first",
    re.compile(r"\badd constraint\b(?!.*not valid)"): "looks through all rows: add_constraint()",
}
# They are computed for each row that is there, so that the table is written anew.
_VOLATILE = re.compile(r"clock_timestamp|gen_random_uuid|random\(|nextval|timeofday")


def faults(source: str) -> list[str]:
    """Name what would stop senders for as long as a large table takes."""
    tree = ast.parse(source)
    ours = {_text(call.args[0]) for call in _calls(tree, "create_table")}
    texts = list(_statements(tree))
    for text in texts:
        ours |= set(_CREATED.findall(text))
    found = [*_by_operation(tree, ours)]
    for text in texts:
        found += _by_statement(text, ours)
    return found


def _by_operation(tree: ast.AST, ours: set[str]) -> Iterator[str]:
    for call in _calls(tree, "create_index"):
        table = _text(call.args[1])
        if table not in ours and not _is_true(call, "postgresql_concurrently"):
            yield f"builds an index on {table} while nobody may write: add_index()"
    for name in ("create_foreign_key", "create_check_constraint", "create_unique_constraint"):
        for call in _calls(tree, name):
            table = _text(call.args[1])
            if table not in ours:
                yield f"{name} looks through {table} while nobody may write: add_constraint()"
    for call in _calls(tree, "alter_column"):
        if _text(call.args[0]) not in ours:
            yield from _by_alteration(call)
    for call in _calls(tree, "add_column"):
        if _text(call.args[0]) not in ours:
            yield from _by_column(_text(call.args[0]), ast.unparse(call.args[1]))


def _by_alteration(call: ast.Call) -> Iterator[str]:
    table = _text(call.args[0])
    given = {each.arg: ast.unparse(each.value) for each in call.keywords}
    if "type_" in given:
        yield f"another type writes {table} anew: add a column, fill() it, swap in a later version"
    if given.get("nullable") == "False":
        yield f"`not null` looks through {table}: add_constraint() with a check first"


def _by_column(table: str, column: str) -> Iterator[str]:
    if "server_default" in column and _VOLATILE.search(column):
        yield f"a default that is computed for each row writes {table} anew"
    if "ForeignKey(" in column:
        yield f"a foreign key on {table}: add_constraint()"


def _by_statement(text: str, ours: set[str]) -> Iterator[str]:
    if re.search(r"\bcreate (?:or replace )?(?:function|trigger)\b", text):
        return
    for table in _INDEXED.findall(text):
        if table not in ours:
            yield f"builds an index on {table} while nobody may write: add_index()"
    for table, what in _ALTERED.findall(text):
        if table not in ours:
            yield from (
                f"{why} ({table})" for pattern, why in _SLOW.items() if pattern.search(what)
            )
    for tables in _BACKFILL.findall(text):
        table = "".join(tables)
        if table not in ours and ":limit" not in text:
            yield f"writes all of {table} in one transaction: fill()"
    for pattern, why in _LONG.items():
        if pattern.search(text):
            yield f"{why}: {text[:60]!r}"


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    upgrade = _without_downgrade(tree)
    for node in upgrade:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == name
        ):
            yield node


def _without_downgrade(tree: ast.AST) -> Iterator[ast.AST]:
    assert isinstance(tree, ast.Module)
    for part in tree.body:
        if not (isinstance(part, ast.FunctionDef) and part.name == "downgrade"):
            yield from ast.walk(part)


def _statements(tree: ast.AST) -> Iterator[str]:
    """All texts but the docstrings, small letters, one blank between words."""
    assert isinstance(tree, ast.Module)
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {
        id(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for value in node.values
    }
    for node in _without_downgrade(tree):
        if id(node) in documented | inside:
            continue
        if isinstance(node, ast.Constant | ast.JoinedStr):
            text = _text(node)
            if text:
                yield " ".join(text.lower().split())


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "_"  # type: ignore[misc]  # text
            for part in node.values
        )
    return ast.unparse(node)


def _is_true(call: ast.Call, name: str) -> bool:
    return any(
        each.arg == name and isinstance(each.value, ast.Constant) and each.value.value is True
        for each in call.keywords
    )
