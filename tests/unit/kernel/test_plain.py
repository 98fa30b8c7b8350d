"""The cheap way to parse what nearly everyone sends sees what the thorough one sees, or nothing."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.kernel import content
from chatserver.kernel.errors import PayloadInvalidError

_DEEP = "[" * 40 + "]" * 40
_WIDE = "[" * 20 + "]" * 20
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def thorough(text: str) -> Any:
    return json.loads(text, object_pairs_hook=content.unique)


def is_refused(value: Any) -> bool:
    try:
        content.check(value)
    except PayloadInvalidError:
        return True
    return False


@given(st.lists(JSON, max_size=3), st.booleans())
def test_whatever_it_takes_is_what_the_thorough_way_takes(
    said: list[Any], are_escaped: bool
) -> None:
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=are_escaped)
    value = content.plain(text)
    if value is not None:
        assert value == thorough(text)
        assert [is_refused(each) for each in value] == [is_refused(each) for each in said]


def test_what_is_checked_is_not_looked_at_again() -> None:
    [name, payload] = content.plain('["message.send",{"content":"hi","n":1.5,"list":[{}]}]')
    assert (name, type(payload)) == ("message.send", content.Checked)
    assert payload == {"content": "hi", "n": 1.5, "list": [{}]}


@pytest.mark.parametrize(
    "text",
    [
        '["e",{"a":1,"a":1}]',
        '["e",{"a":{"b":1,"b":2}}]',
        '["e",{"a":1e400}]',
        '["e",{"a":NaN}]',
        '["e",{"a":18446744073709551616}]',
        '["e",{"a":1.0e1}]',
        '["e", {"a":1}]',
        '["e",{"a":"\\ud800"}]',
        '{"a":1}',
        "nonsense",
    ],
)
def test_of_anything_unusual_it_knows_nothing(text: str) -> None:
    assert content.plain(text) is None


@pytest.mark.parametrize(
    ("text", "is_bad"),
    [
        ('["e",{"a":"\\u0000"}]', True),
        ('["e",{"\\u0000":1}]', True),
        ('["e",{"a":9007199254740992}]', True),
        ('["e",{"a":[-9007199254740993]}]', True),
        ('["e",{"a":9007199254740991}]', False),
        ('["e",{"a":":9007199254740992"}]', False),
        (f'["e",{{"a":{_DEEP}}}]', True),
        (f'["e",{{"a":{_WIDE},"b":{_WIDE}}}]', False),
    ],
)
def test_what_may_be_bad_is_looked_at_thoroughly(text: str, is_bad: bool) -> None:
    [_, payload] = content.plain(text)
    assert type(payload) is not content.Checked
    assert is_refused(payload) is is_bad
    assert orjson.dumps(payload) == orjson.dumps(thorough(text)[1])
