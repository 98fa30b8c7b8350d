"""What is written from the registry of the real server is valid, complete and up to date."""

import json
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from typer.testing import CliRunner

from chatserver.cli.program import build
from chatserver.cli.reference import pages
from chatserver.operations import build_registry
from chatserver.transport.documents.catalogue import every_error
from chatserver.transport.http import PREFIX

DOCS = Path(__file__).parents[3] / "docs"


def test_the_openapi_document_is_valid_and_has_every_route() -> None:
    printed = CliRunner().invoke(build(["openapi"]), ["openapi"])
    assert printed.exit_code == 0, printed.output
    document = json.loads(printed.stdout)
    validate(document)
    for route in build_registry().routes:
        assert route.method.lower() in document["paths"][PREFIX + route.path]


def test_the_asyncapi_document_has_every_command_and_fact() -> None:
    printed = CliRunner().invoke(build(["asyncapi"]), ["asyncapi"])
    assert printed.exit_code == 0, printed.output
    document = json.loads(printed.stdout)
    registry = build_registry()
    there = {
        (channel["address"], name)
        for channel in document["channels"].values()
        for name in channel["messages"]
    }
    declared = [(each.name, each.namespaces) for each in registry.operations.values()]
    declared += [(each.name, each.namespaces) for each in registry.facts.values()]
    for name, namespaces in declared:
        assert {(namespace, name) for namespace in namespaces} <= there


def test_no_schema_is_called_by_where_its_class_stands() -> None:
    for command in ("openapi", "asyncapi"):
        document = json.loads(CliRunner().invoke(build([command]), [command]).stdout)
        assert [name for name in document["components"]["schemas"] if "_" in name] == []


def test_every_error_that_an_operation_declares_is_documented() -> None:
    known = {error.code for error in every_error()}
    declared = {
        error.code for each in build_registry().operations.values() for error in each.errors
    }
    assert declared
    assert declared <= known
    page = pages()["errors.md"]
    assert all(f'<a id="{code}"></a>' in page for code in known)


@pytest.mark.parametrize("name", ["errors.md", "events.md"])
def test_the_pages_are_as_the_code_has_them(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run: chatserver docs"
