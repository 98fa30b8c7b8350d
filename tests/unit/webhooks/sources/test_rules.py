"""When a rule is for a request, and what it wants."""

from typing import Any

import pytest
from pydantic import ValidationError

from chatserver.webhooks.sources.payloads import Document
from chatserver.webhooks.sources.rule_schemas import Condition, Rule
from chatserver.webhooks.sources.rules import holds, stored, try_rules, written
from chatserver.webhooks.sources.schemas import SourceCreate

PAYLOAD = {
    "type": "order.paid",
    "total": 42,
    "price": "19.90",
    "tags": ["vip", "eu"],
    "ok": True,
    "items": [{"sku": "A"}, {"sku": "B"}],
    "null": None,
}
DOCUMENT = Document(PAYLOAD, {"x-topic": "orders/paid"}, {})


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ({"path": "$.type", "value": "order.paid"}, True),
        ({"path": "$.type", "value": "order"}, False),
        ({"path": "$.total", "value": 42}, True),
        ({"path": "$.total", "value": "42"}, False),
        ({"path": "$.ok", "value": True}, True),
        ({"path": "$.ok", "value": 1}, False),
        ({"path": "$.null", "value": None}, True),
        ({"path": "$.gone", "value": None}, False),
        ({"path": "$.type", "op": "not_equals", "value": "x"}, True),
        ({"path": "$.gone", "op": "not_equals", "value": "x"}, True),
        ({"path": "$.type", "op": "in", "value": ["a", "order.paid"]}, True),
        ({"path": "$.type", "op": "not_in", "value": ["a"]}, True),
        ({"path": "$.type", "op": "not_in", "value": ["order.paid"]}, False),
        ({"path": "$.gone", "op": "exists"}, False),
        ({"path": "$.null", "op": "exists"}, True),
        ({"path": "$.gone", "op": "missing"}, True),
        ({"path": "$.tags", "op": "contains", "value": "vip"}, True),
        ({"path": "$.type", "op": "contains", "value": "der."}, True),
        ({"path": "$.type", "op": "starts_with", "value": "order."}, True),
        ({"path": "$.type", "op": "ends_with", "value": ".paid"}, True),
        ({"path": "$.total", "op": "greater", "value": 41.5}, True),
        ({"path": "$.price", "op": "less", "value": 20}, True),
        ({"path": "$.type", "op": "greater", "value": 1}, False),
        ({"path": "$.ok", "op": "greater", "value": 0}, False),
        ({"path": "$.items[*].sku", "value": "B"}, True),
        ({"header": "X-Topic", "value": "orders/paid"}, True),
        ({"header": "x-other", "op": "missing"}, True),
    ],
)
def test_each_condition(test: dict[str, Any], expected: bool) -> None:
    assert holds(Condition.model_validate(test), DOCUMENT) is expected


@pytest.mark.parametrize(
    "test",
    [
        {},
        {"path": "$.a", "header": "x"},
        {"path": "a"},
        {"path": "$.a", "op": "in", "value": "x"},
        {"path": "$.a", "op": "greater", "value": "x"},
        {"path": "$.a", "op": "matches", "value": "(a+)+$"},
    ],
)
def test_what_is_no_condition(test: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate(test)


def rule(**action: Any) -> Rule:
    return Rule.model_validate({"name": "r", "actions": [action]})


def planned(**action: Any) -> Any:
    [tried] = try_rules([rule(**action)], DOCUMENT)
    return tried.actions[0]


def test_names_from_a_list_and_numbers_as_names() -> None:
    made = planned(
        type="create_room", external_id="{{ $.total }}", member_ids="{{ $.items[*].sku }}"
    )
    assert (made.arguments["external_id"], made.arguments["member_ids"]) == ("42", ["A", "B"])


@pytest.mark.parametrize("where", ["$.items", "$.ok", "$.null", "$.gone"])
def test_what_is_no_name_is_a_problem_of_the_action(where: str) -> None:
    made = planned(type="create_room", external_id=f"{{{{ {where} }}}}")
    assert made.problem is not None


def test_a_value_that_can_not_be_kept_is_a_problem() -> None:
    document = Document({"a": "\x00"}, {}, {})
    action = rule(type="post_message", room_id="x", content="{{ $.a }}")
    [tried] = try_rules([action], document)
    assert tried.actions[0].problem is not None


def test_forwarding_without_data_sends_the_payload() -> None:
    made = planned(type="forward", endpoint_id="018f0000-0000-7000-8000-0123456789ab")
    assert made.arguments["data"] == {"payload": PAYLOAD}


def test_a_rule_is_kept_and_read_again_as_it_was() -> None:
    rules = [
        rule(type="forward", endpoint_id="018f0000-0000-7000-8000-0123456789ab", data={"a": [1]}),
        rule(type="post_message", room_external_id="x", content="y"),
    ]
    assert stored(written(rules)) == rules


@pytest.mark.parametrize(
    "wrong",
    [
        {"actions": []},
        {"actions": [{"type": "delete_everything"}]},
        {"actions": [{"type": "post_message", "content": "x"}]},
        {"actions": [{"type": "post_message", "room_id": "x", "content": "{{ x }}"}]},
        {"actions": [{"type": "create_room", "external_id": "x", "metadata": {"a": ["{{ x }}"]}}]},
        {"name": "Not a name"},
    ],
)
def test_what_is_no_rule(wrong: dict[str, Any]) -> None:
    good = {"name": "r", "actions": [{"type": "create_room", "external_id": "x"}]}
    Rule.model_validate(good)
    with pytest.raises(ValidationError):
        Rule.model_validate({**good, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"scheme": "sms"},
        {"scheme": "generic_hmac"},
        {"scheme": "github", "signing": {"header": "x"}},
        {"scheme": "generic_hmac", "signing": {"header": "x", "template": "{timestamp}{body}"}},
        {"scheme": "generic_hmac", "signing": {"header": "x", "timestamp_header": "x-t"}},
        {"scheme": "generic_hmac", "signing": {"header": "x y"}},
        {"dedupe": {}},
        {"dedupe": {"path": "$.a", "header": "x"}},
        {"slug": "Not/a/slug"},
        {"slug": "a\n"},
        {"url": "ftp://x"},
        {"rules": [{"name": "a", "actions": [{"type": "create_room", "external_id": "x"}]}] * 2},
    ],
)
def test_what_is_no_source(wrong: dict[str, Any]) -> None:
    good = {"slug": "shop", "scheme": "github", "secrets": ["12345678"]}
    SourceCreate.model_validate(good)
    with pytest.raises(ValidationError):
        SourceCreate.model_validate({**good, **wrong})
