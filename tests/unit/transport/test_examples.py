"""Every operation and every event of both documents has an example that its schema takes."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry as References
from referencing.jsonschema import DRAFT202012

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.operations import build_registry
from chatserver.transport.documents.asyncapi import asyncapi
from chatserver.transport.documents.examples import Examples
from chatserver.transport.documents.openapi import openapi
from chatserver.transport.documents.schemas import Schemas
from chatserver.transport.http import QUERY_METHODS
from chatserver.transport.registry import parse

HOME = "urn:document"


@cache
def rest() -> dict[str, Any]:
    return openapi(build_registry())


@cache
def sockets() -> dict[str, Any]:
    return asyncapi(build_registry())


class Judge:
    """Holds values against schemas that refer to the components of a document."""

    def __init__(self, document: dict[str, Any]) -> None:
        resource = DRAFT202012.create_resource(document)
        self._references: References[Any] = References().with_resource(HOME, resource)

    def problems(self, value: Any, schema: dict[str, Any]) -> list[str]:
        checker = FormatChecker(formats=("uuid", "date"))
        validator = Draft202012Validator(
            _rooted(schema), registry=self._references, format_checker=checker
        )
        return [f"{'.'.join(map(str, e.path))}: {e.message}" for e in validator.iter_errors(value)]


def _rooted(part: Any) -> Any:
    """Make references to the document absolute, so that a part of it stands alone."""
    if isinstance(part, dict):
        return {key: HOME + each if key == "$ref" else _rooted(each) for key, each in part.items()}
    return [_rooted(each) for each in part] if isinstance(part, list) else part


def of_rest() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, example and schema of everything that goes over HTTP; None where there is none."""
    missing = object()
    for path, methods in rest()["paths"].items():
        for method, entry in methods.items():
            name = f"{method.upper()} {path}"
            for each in entry.get("parameters", ()):
                if each.get("in") == "path":
                    yield f"{name} {each['name']}", each.get("example", missing), each["schema"]
            contents = [("sent", entry.get("requestBody", {}).get("content", {}))]
            contents += [
                (status, answer.get("content", {}))
                for status, answer in entry["responses"].items()
                if status.startswith("2")
            ]
            for kind, content in contents:
                for media, said in content.items():
                    if media != "multipart/form-data":
                        example = said.get("example", missing)
                        yield f"{name} {kind} {media}", example, said["schema"]


def test_every_operation_has_examples_that_its_schemas_take() -> None:
    judge = Judge(rest())
    wrong = {
        name: found
        for name, example, schema in of_rest()
        if (found := judge.problems(example, schema))
    }
    assert wrong == {}
    assert len(list(of_rest())) > 300


def test_every_command_ack_and_fact_has_an_example_that_its_schema_takes() -> None:
    judge = Judge(sockets())
    wrong = {}
    for name, message in sockets()["components"]["messages"].items():
        (example,) = message["examples"]
        found = judge.problems(example["payload"], message["payload"])
        if found:
            wrong[name] = found
    assert wrong == {}


def test_every_example_of_a_request_passes_the_checks_of_its_model() -> None:
    registry = build_registry()
    schemas = Schemas(registry)
    examples = Examples(schemas.components)
    written = {name for name, each in registry.operations.items() if each.namespaces}
    written |= {each.operation for each in registry.routes if each.method not in QUERY_METHODS}
    wrong = {}
    for name in written:
        model = registry.operations[name].request
        example = examples.sent(schemas.sent(model))
        try:
            parse(model, example)
        except PayloadInvalidError as error:
            wrong[name] = f"{error}: {example}"
    assert len(written) > 100
    assert wrong == {}


def test_an_example_says_something() -> None:
    """No example of a request is empty unless there is nothing to say."""
    registry = build_registry()
    schemas = Schemas(registry)
    examples = Examples(schemas.components)
    for operation in registry.operations.values():
        reference = schemas.sent(operation.request)
        if schemas.whole(reference).get("properties"):
            assert examples.sent(reference), operation.name


@pytest.mark.parametrize("name", ["message.created", "member.joined", "read.updated"])
def test_an_example_of_a_fact_is_one_of_that_fact(name: str) -> None:
    payload = sockets()["components"]["messages"][name]["examples"][0]["payload"]
    assert payload["type"] == name
    assert ("seq" in payload) is sockets()["components"]["messages"][name]["x-sequenced"]
