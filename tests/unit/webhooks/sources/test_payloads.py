"""Paths are a tenant's and payloads a stranger's: together they take no longer than a walk."""

import time
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.webhooks.sources.payloads import (
    MOST_NODES,
    Document,
    MissingValueError,
    check_text,
    compiled,
    fill,
    payload_of,
    select,
)

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
EVENT = {"event.id": "e1", "source.slug": "shop"}


def document(payload: Any, **headers: str) -> Document:
    return Document(payload, headers, EVENT)


class TestForms:
    KIND: Final = {"content-type": 'multipart/form-data; boundary="b"'}

    @staticmethod
    def part(name: str, value: bytes, more: bytes = b"") -> bytes:
        head = f'Content-Disposition: form-data; name="{name}"'.encode()
        return b"--b\r\n" + head + more + b"\r\n\r\n" + value + b"\r\n"

    def test_fields_of_several_parts_are_read_as_those_of_one(self) -> None:
        latin = b"\r\nContent-Type: text/plain; charset=iso-8859-1"
        body = (
            self.part("to", b"a") + self.part("to", b"b") + self.part("who", b"J\xfcrg", latin)
        ) + b"--b--\r\n"
        assert payload_of(self.KIND, body) == {"to": ["a", "b"], "who": "Jürg"}
        wrapped = self.part("payload", b'{"n": 1}') + b"--b--"
        assert payload_of(self.KIND, wrapped) == {"n": 1}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"--b",
            b"--b\r\nX" * 140_000,
            b"--b\r\n" + b"a: b\r\n" * 130_000,
            b"--b\r\n\r\n\r\n" * 100_000,
            b'--b\r\nContent-Disposition: form-data; name="' + b";" * 1_000_000,
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"\r\n-" * 330_000,
        ],
    )
    def test_what_is_no_such_form_costs_no_more_than_a_walk(self, body: bytes) -> None:
        began = time.process_time()
        assert payload_of(self.KIND, body) == {}
        assert payload_of({"content-type": "multipart/form-data"}, body) == {}
        assert time.process_time() - began < 0.5


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("$.a.b", [1]),
            ("$['a']['b']", [1]),
            ("$.list[*].n", [1, 2, 3]),
            ("$.list[-1].n", [3]),
            ("$.list[?@.n > 1].n", [2, 3]),
            ("$.list[?@.n == 2 || @.n == $.a.b].n", [1, 2]),
            ("$.list[?length(@.tag) > 1].n", [3]),
            ("$..n", [1, 2, 3]),
            ("$.list[0:2].n", [1, 2]),
            ("$.nothing", []),
            ("$", [{"a": {"b": 1}, "list": [{"n": 1}, {"n": 2}, {"n": 3, "tag": "xy"}]}]),
        ],
    )
    def test_what_a_path_finds(self, path: str, found: list[Any]) -> None:
        payload = {"a": {"b": 1}, "list": [{"n": 1}, {"n": 2}, {"n": 3, "tag": "xy"}]}
        assert select(document(payload), path) == found

    @pytest.mark.parametrize(
        "path",
        [
            "a.b",
            "$.",
            "$..a..b",
            "$" + "[*, *]" * 2,
            "$" + "['a', 'a']" * 10,
            "$" + ".a" * 21,
            "$." + "a" * 300,
            "$[?match(@.a, '(a+)+$')]",
            "$[?search(@.a, '(a+)+$')]",
            "$[?@..a]",
            "$[?@[*] == 1]",
            "$[?count(@.*) > 1]",
            "$[?@[?@.a]]",
            "$[?(" * 60 + "1==1" + ")]" * 60,
        ],
    )
    def test_what_could_take_long_is_no_path(self, path: str) -> None:
        with pytest.raises(ValueError, match=r"JSONPath|may|several"):
            compiled(path)

    def test_the_worst_that_is_allowed_ends_soon(self) -> None:
        # About a megabyte, deep and wide.
        deep: Any = 1
        for _ in range(60):
            deep = {"a": [deep, {"b": "x"}]}
        payload = {"deep": deep, "wide": [{"n": n, "t": "x" * 10} for n in range(20_000)]}
        began = time.monotonic()
        for path in ("$..nothing", "$..*", "$..[?@.n == $.deep].t", "$.wide[*].t"):
            assert len(select(document(payload), path)) <= MOST_NODES
        assert time.monotonic() - began < 3

    def test_too_deep_is_nothing(self) -> None:
        deep: Any = 1
        for _ in range(200):
            deep = [deep]
        assert select(document(deep), "$..a") == []

    @given(st.text(max_size=60))
    def test_whatever_somebody_writes_is_a_path_or_refused(self, text: str) -> None:
        try:
            compiled(text)
        except ValueError:
            return
        assert select(document({"a": [1]}), text) is not None


class TestPayloads:
    def test_json_and_forms(self) -> None:
        assert payload_of(JSON, b'{"a": [1, "\xc3\xbc"]}') == {"a": [1, "ü"]}
        assert payload_of(FORM, b"a=1&b=2&b=3&c=") == {"a": "1", "b": ["2", "3"], "c": ""}
        assert payload_of(FORM, b"payload=%7B%22a%22%3A1%7D") == {"a": 1}
        assert payload_of(FORM, b"payload=text") == {"payload": "text"}

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b"\x00"])
    def test_what_is_neither_is_nothing(self, body: bytes) -> None:
        assert payload_of(JSON, body) is None

    def test_what_is_too_deep_is_nothing_and_large_numbers_are_texts(self) -> None:
        assert payload_of(JSON, b"[" * 63 + b"]" * 63) is not None
        assert payload_of(JSON, b"[" * 65 + b"]" * 65) is None
        big = {"id": 820982911946154508, "at": [2**53, 2**53 - 1, -(2**53)], "ok": True}
        assert payload_of(JSON, orjson.dumps(big)) == {
            "id": "820982911946154508",
            "at": ["9007199254740992", 2**53 - 1, "-9007199254740992"],
            "ok": True,
        }
        assert payload_of(JSON, b"9007199254740993") == "9007199254740993"

    @given(st.binary(max_size=100))
    def test_no_body_breaks_it(self, body: bytes) -> None:
        for headers in (JSON, FORM, {}):
            payload_of(headers, body)


class TestTexts:
    @pytest.mark.parametrize(
        ("text", "filled"),
        [
            ("plain", "plain"),
            ("{{ $.n }}", 5),
            ("n={{$.n}}!", "n=5!"),
            ("{{ $.a }} and {{ $.b }}", "x and true"),
            ("{{ $.list }}", ["p", "q"]),
            ("{{ $.list[*] }}", ["p", "q"]),
            ("got {{ $.list[*] }}", "got p, q"),
            ("{{ $.o }} {{ $.o }}", '{"k":1} {"k":1}'),
            ('{{ $.none | "nobody" }}', "nobody"),
            ('{{ $.null | "" }}', ""),
            ("{{ header.x-topic }}", "orders"),
            ("{{ event.id }}@{{ source.slug }}", "e1@shop"),
            ("{{ $.list[?@ == 'p' || @ == 'q'] }}", ["p", "q"]),
            ("{ {{ $.n }} }", "{ 5 }"),
        ],
    )
    def test_values_go_into_their_places(self, text: str, filled: Any) -> None:
        payload = {"n": 5, "a": "x", "b": True, "list": ["p", "q"], "o": {"k": 1}, "null": None}
        check_text(text)
        assert fill(text, document(payload, **{"x-topic": "orders"})) == filled

    def test_a_value_is_never_read_as_a_placeholder(self) -> None:
        sneaky = {"a": "{{ header.secret }}", "b": "b"}
        made = fill("{{ $.a }}/{{ $.b }}", document(sneaky, secret="s3cret"))
        assert made == "{{ header.secret }}/b"

    @pytest.mark.parametrize("text", ["{{ $.none }}", "a {{ $.null }}", "{{ header.nope }}"])
    def test_a_missing_value_is_named(self, text: str) -> None:
        with pytest.raises(MissingValueError, match="has no value for"):
            fill(text, document({"null": None}))

    @pytest.mark.parametrize("text", ["{{ x }}", "{{ }}", "{{ $..a..b }}", "{{ event.secret }}"])
    def test_what_nothing_can_fill(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"neither|may|JSONPath"):
            check_text(text)

    def test_a_text_does_not_grow_without_end(self) -> None:
        with pytest.raises(MissingValueError, match="at most 20000"):
            fill("{{ $.a }}" * 30, document({"a": "x" * 1000}))

    @settings(max_examples=30)
    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
    def test_whatever_came_can_be_written(self, value: Any) -> None:
        try:
            made = fill("v={{ $.v }}", document({"v": value}))
        except (MissingValueError, orjson.JSONEncodeError):
            return
        assert made.startswith("v=")
