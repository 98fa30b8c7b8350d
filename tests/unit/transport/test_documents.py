"""Both documents are valid and complete, and the pages follow from the same entries."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from chatserver.kernel.wire import Answer, Empty, Id, Request, ShortText
from chatserver.notifications.callbacks import door as callbacks
from chatserver.notifications.consent import door as consent
from chatserver.notifications.push import door as vapid
from chatserver.transport.documents.asyncapi import asyncapi
from chatserver.transport.documents.markdown import errors_page, events_page
from chatserver.transport.documents.openapi import openapi
from chatserver.transport.documents.outside import OUTSIDE
from chatserver.transport.registry import FactSpec, Registry, Route, operation
from tests.support.rest import BoxFact, example_registry


@pytest.fixture(scope="module")
def rest() -> dict[str, Any]:
    return openapi(example_registry())


@pytest.fixture(scope="module")
def sockets() -> dict[str, Any]:
    return asyncapi(example_registry())


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def follow(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, entry in methods.items():
            yield path, method, entry


def parameter(entry: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in entry["parameters"] if each.get("name") == name)
    assert isinstance(found, dict)
    return found


class TestOpenApi:
    def test_it_is_valid(self, rest: dict[str, Any]) -> None:
        validate(rest)
        assert json.loads(json.dumps(rest)) == rest

    def test_every_route_is_in_it(self, rest: dict[str, Any]) -> None:
        there = {(path, method) for path, method, _ in operations(rest)}
        for route in example_registry().routes:
            assert ("/api/v1" + route.path, route.method.lower()) in there
        assert {"/health", "/health/ready", "/health/db"} <= set(rest["paths"])

    def test_every_reference_leads_somewhere(self, rest: dict[str, Any]) -> None:
        found = set(references(rest))
        assert len(found) > 10
        for reference in found:
            follow(rest, reference)

    def test_no_schema_is_there_for_nothing(self, rest: dict[str, Any]) -> None:
        used = {each.rpartition("/")[2] for each in references(rest)}
        assert set(rest["components"]["schemas"]) <= used

    def test_every_operation_has_an_id_of_its_own_and_a_text(self, rest: dict[str, Any]) -> None:
        entries = [entry for _, _, entry in operations(rest)]
        assert len({entry["operationId"] for entry in entries}) == len(entries)
        assert all(entry["summary"] for entry in entries)

    def test_a_text_tells_who_may_call(self, rest: dict[str, Any]) -> None:
        make = rest["paths"]["/api/v1/boxes"]["post"]
        assert make["summary"] == "Make a box."
        assert "A box of the same name is answered as it is." in make["description"]
        assert "Takes a master key or a scoped key." in make["description"]
        assert make["x-callers"] == ["master", "user"]
        assert make["x-scope"] == "rooms:write"
        assert make["security"] == [{"bearer": ["rooms:write"]}, {"apiKey": ["rooms:write"]}]
        count = rest["paths"]["/api/v1/count"]["post"]
        assert count["x-callers"] == ["operator"]
        assert "requestBody" not in count

    def test_path_members_are_parameters_and_not_in_the_body(self, rest: dict[str, Any]) -> None:
        change = rest["paths"]["/api/v1/boxes/{box_id}"]["patch"]
        assert parameter(change, "box_id")["in"] == "path"
        assert parameter(change, "box_id")["schema"]["format"] == "uuid"
        body = change["requestBody"]
        assert body["required"] is False
        schema = follow(rest, body["content"]["application/json"]["schema"]["$ref"])
        assert set(schema["properties"]) == {"name"}
        assert schema["additionalProperties"] is False

    def test_other_members_of_a_read_are_query_parameters(self, rest: dict[str, Any]) -> None:
        listing = rest["paths"]["/api/v1/boxes"]["get"]
        assert "requestBody" not in listing
        size = parameter(listing, "size")
        assert (size["in"], size["required"]) == ("query", False)
        assert (size["schema"]["maximum"], size["schema"]["default"]) == (100, 20)
        assert parameter(listing, "colour")["description"].startswith("Only boxes")

    def test_every_refusal_has_its_status_and_an_example(self, rest: dict[str, Any]) -> None:
        make = rest["paths"]["/api/v1/boxes"]["post"]
        codes = {
            (status, name)
            for status, answer in make["responses"].items()
            for name in answer["content"].get("application/problem+json", {}).get("examples", {})
        }
        assert codes >= {
            ("401", "example.key_missing"),
            ("403", "auth.scope_missing"),
            ("403", "auth.origin"),
            ("408", "request.timeout"),
            ("409", "example.full"),
            ("409", "idempotency.in_progress"),
            ("413", "payload.too_large"),
            ("415", "payload.invalid.415"),
            ("422", "payload.invalid"),
            ("422", "idempotency.conflict"),
            ("429", "rate.limited"),
            ("500", "internal.error"),
            ("503", "unavailable"),
        }
        for status, name in codes:
            value = rest["components"]["examples"][name]["value"]
            assert str(value["status"]) == status
            assert set(rest["components"]["schemas"]["Problem"]["required"]) <= set(value)

    def test_writes_take_an_idempotency_key_and_reads_do_not(self, rest: dict[str, Any]) -> None:
        for path, method, entry in operations(rest):
            if not path.startswith("/api/"):
                continue  # vendors and mail programs send what they send
            taken = {"$ref": "#/components/parameters/IdempotencyKey"} in entry.get(
                "parameters", []
            )
            assert taken == (method != "get")

    def test_an_answer_that_may_be_a_repeat_has_both_statuses(self, rest: dict[str, Any]) -> None:
        assert {"200", "201"} <= set(rest["paths"]["/api/v1/boxes"]["post"]["responses"])
        assert "201" not in rest["paths"]["/api/v1/count"]["post"]["responses"]

    def test_one_operation_behind_two_routes_keeps_the_ids_apart(self) -> None:
        registry = Registry()
        registry.add(
            Shelves(),
            routes=(
                Route(method="POST", path="/shelves/{shelf_id}/label", operation="shelf.label"),
                Route(method="PATCH", path="/shelves/{shelf_id}", operation="shelf.label"),
                Route(method="PATCH", path="/labels/{label}", operation="shelf.label"),
            ),
        )
        document = openapi(registry)
        validate(document)
        bodies = {
            entry["operationId"]: set(
                follow(
                    document, entry["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                )["properties"]
            )
            for path, _, entry in operations(document)
            if path.startswith("/api")
        }
        assert bodies == {
            "shelf.label": {"label"},
            "shelf.label.patch": {"label"},
            "shelf.label.patch/labels/{label}": {"shelf_id"},
        }


class LabelShelf(Request):
    shelf_id: Id
    label: ShortText


class Shelves:
    @operation("shelf.label", LabelShelf, Empty)
    async def label(self, principal: object, request: LabelShelf) -> Answer:
        """Label a shelf."""
        return Empty()


class TestAsyncApi:
    def test_it_has_the_shape_of_asyncapi_3(self, sockets: dict[str, Any]) -> None:
        assert sockets["asyncapi"] == "3.0.0"
        assert set(sockets) == {
            *("asyncapi", "info", "defaultContentType", "servers", "channels"),
            *("operations", "components"),
        }
        assert {"title", "version"} <= set(sockets["info"])
        for name in (*sockets["channels"], *sockets["operations"]):
            assert re.fullmatch(r"[\w.-]+", name)
        for name in sockets["components"]["messages"]:
            assert re.fullmatch(r"[\w.-]+", name)
        for entry in sockets["operations"].values():
            assert entry["action"] in {"send", "receive"}
        assert json.loads(json.dumps(sockets)) == sockets

    def test_every_reference_leads_somewhere(self, sockets: dict[str, Any]) -> None:
        found = set(references(sockets))
        assert len(found) > 10
        for reference in found:
            follow(sockets, reference)

    def test_an_operation_only_uses_messages_of_its_own_channel(
        self, sockets: dict[str, Any]
    ) -> None:
        for entry in sockets["operations"].values():
            channel = entry["channel"]["$ref"]
            replies = entry.get("reply", {"messages": []})["messages"]
            for message in (*entry["messages"], *replies):
                assert message["$ref"].startswith(f"{channel}/messages/")

    def test_every_command_and_fact_is_in_its_namespaces(self, sockets: dict[str, Any]) -> None:
        registry = example_registry()
        assert {each["address"] for each in sockets["channels"].values()} == {"/boxes", "/shelves"}
        for each in registry.operations.values():
            assert each.name in sockets["channels"]["boxes"]["messages"]
            assert f"{each.name}.ack" in sockets["channels"]["boxes"]["messages"]
        assert "box.made" in sockets["channels"]["shelves"]["messages"]
        assert "box.shaken" not in sockets["channels"]["boxes"]["messages"]

    def test_a_command_has_its_payload_and_its_ack(self, sockets: dict[str, Any]) -> None:
        messages = sockets["components"]["messages"]
        payload = follow(sockets, messages["box.make"]["payload"]["$ref"])
        assert payload["required"] == ["name"]
        done, refused = messages["box.make.ack"]["payload"]["oneOf"]
        assert done["properties"]["ok"] == {"const": True}
        assert set(follow(sockets, done["properties"]["data"]["$ref"])["properties"]) == {
            "box",
            "was_there",
        }
        assert refused["properties"]["error"] == {"$ref": "#/components/schemas/Error"}
        assert messages["box.make.ack"]["x-errors"] == ["example.full"]

    def test_facts_have_their_envelope(self, sockets: dict[str, Any]) -> None:
        messages = sockets["components"]["messages"]
        made = messages["box.made"]["payload"]
        assert made["properties"]["type"] == {"const": "box.made"}
        assert {"v", "id", "room_id", "epoch", "seq", "ts", "actor", "data"} <= set(
            made["required"]
        )
        shaken = messages["box.shaken"]["payload"]
        assert not {"epoch", "seq"} & set(shaken["properties"])
        assert "room_id" in shaken["properties"]
        assert "data" not in messages["box.hello"]["payload"].get("properties", {})


class TestRegistry:
    def test_a_fact_is_declared_once(self) -> None:
        registry = example_registry()
        with pytest.raises(ValueError, match=r"box\.made is declared twice"):
            registry.add_facts(FactSpec("box.made", (), BoxFact, sequenced=True, summary="Again."))


class TestPages:
    def test_errors_has_a_row_and_one_anchor_for_each_code(self) -> None:
        page = errors_page()
        assert "| 404 | not_found | no | There is nothing at this path. |" in page
        for code in ("route.not_found", "payload.invalid", "internal.error", "rate.limited"):
            assert page.count(f'<a id="{code}"></a>') == 1
        assert "example." not in page

    def test_events_tells_payload_answer_and_errors(self) -> None:
        page = events_page(example_registry())
        assert "### Command `box.make`" in page
        assert "| `name` | string | yes |" in page
        assert "Errors: `example.full`." in page
        assert "### Fact `box.made` (has a `seq`)" in page
        assert "Needs the scope `rooms:write`." in page
        # A bar in a text must not end its cell.
        assert "Only boxes of this \\| that colour." in page


@pytest.mark.parametrize("path", [callbacks.PATH, vapid.PATH, consent.PATH])
def test_the_doors_beside_the_api_are_described_too(path: str) -> None:
    assert path in OUTSIDE
