import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.kernel import content
from chatserver.kernel.errors import PayloadInvalidError

LONE = "\ud800"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def refusal(raw: bytes | str) -> dict[str, str]:
    with pytest.raises(PayloadInvalidError) as caught:
        content.parse(raw)
    [issue] = caught.value.issues
    return {"field": issue["field"], "issue": issue["issue"]}


class TestParse:
    @pytest.mark.parametrize(
        ("raw", "field", "issue"),
        [
            ("", "$", "is not JSON"),
            ("{", "$", "is not JSON"),
            ('{"a": 1,}', "$", "is not JSON"),
            ("{'a': 1}", "$", "is not JSON"),
            ('{"a": 1} x', "$", "is not JSON"),
            ('\ufeff{"a": 1}', "$", "is not JSON"),
            (b'\xef\xbb\xbf{"a": 1}', "$", "is not JSON"),
            (b'"\xff"', "$", "is not UTF-8"),
            ('{"a": 1}'.encode("utf-16"), "$", "is not UTF-8"),
            (b'{"a": "\xed\xa0\x80"}', "$", "is not UTF-8"),
            ('"\\u0000"', "$", "contains NUL"),
            ('{"a": {"b": "x\\u0000"}}', "a.b", "contains NUL"),
            ('{"a": [0, "ü\\u0000"]}', "a.1", "contains NUL"),
            ('{"a\\u0000": 1}', "$", "contains NUL"),
            ('{"a": {"b\\u0000": 1}}', "a", "contains NUL"),
            ('{"a": "\\ud800"}', "a", "contains a lone surrogate"),
            ('{"a": {"\\udfff": 1}}', "a", "contains a lone surrogate"),
            ('{"a": "\\udc00\\ud800"}', "a", "contains a lone surrogate"),
            ('{"a": 9007199254740992}', "a", "is beyond 2^53 - 1"),
            ('{"a": -9007199254740992}', "a", "is beyond 2^53 - 1"),
            (f'{{"a": 1{"0" * 400}}}', "a", "is beyond 2^53 - 1"),
            (f'{{"a": 1{"0" * 5000}}}', "$", "is not JSON"),
            ('{"a": NaN}', "a", "is not a finite number"),
            ('{"a": [1, -Infinity]}', "a.1", "is not a finite number"),
            ('{"a": 1e999}', "a", "is not a finite number"),
            ('{"a": 1, "a": 2}', "a", "stands twice"),
            ('{"b": {"a": 1, "\\u0061": 1}}', "a", "stands twice"),
            ('{"\\ud800": 1, "\\ud800": 1}', "\\ud800", "stands twice"),
            (nested(33), ".".join(["0"] * 32), "nested deeper than 32"),
            (nested(100_000), "$", "nested deeper than 32"),
        ],
    )
    def test_bad_input_is_refused_with_the_field_named(
        self, raw: bytes | str, field: str, issue: str
    ) -> None:
        assert refusal(raw) == {"field": field, "issue": issue}

    @pytest.mark.parametrize(
        "raw",
        [
            nested(32),
            '{"a": 9007199254740991, "b": -9007199254740991}',
            '{"a": "\\ud83d\\ude00", "b": "😀"}',
            '{"a": null, "b": true, "c": 1.5e300}',
            b'{"gr\xc3\xb6\xc3\x9fe": "\x7f"}',
            "3",
        ],
    )
    def test_what_can_be_kept_is_taken_as_it_is(self, raw: bytes | str) -> None:
        assert content.parse(raw) == json.loads(raw)

    def test_an_error_never_repeats_much_of_the_input(self) -> None:
        issue = refusal(json.dumps({"k" * 10_000: {"x": "\x00"}}))
        assert issue["field"] == "k" * 64 + ".x"

    def test_a_long_name_above_a_long_list_costs_no_more_than_its_size(self) -> None:
        raw = json.dumps({"k" * 60_000: [0] * 20_000})
        started = time.process_time()
        content.parse(raw)
        # Written out for each item, the names alone would be 1.2 GB.
        assert time.process_time() - started < 0.5

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
            lambda inner: (
                st.lists(inner, max_size=5)
                | st.dictionaries(st.text(st.characters()), inner, max_size=5)
            ),
            max_leaves=20,
        )
    )
    def test_whatever_is_accepted_survives_both_encoders(self, value: Any) -> None:
        try:
            accepted = content.parse(json.dumps(value))
        except PayloadInvalidError:
            return
        assert accepted == value
        assert json.loads(json.dumps(accepted)) == accepted
        assert orjson.loads(orjson.dumps(accepted)) == accepted
        assert "\\u0000" not in orjson.dumps(accepted).decode().replace("\\\\", "")


class TestCheck:
    @pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x")])
    def test_binary_is_refused_wherever_it_stands(self, value: Any) -> None:
        with pytest.raises(PayloadInvalidError) as caught:
            content.check({"a": [value]})
        assert caught.value.issues == ({"field": "a.0", "issue": "is binary; send text"},)

    def test_tuples_are_lists(self) -> None:
        content.check(({"a": ()},))
        with pytest.raises(PayloadInvalidError) as caught:
            content.check((1, (LONE,)))
        assert caught.value.issues[0]["field"] == "1.0"
