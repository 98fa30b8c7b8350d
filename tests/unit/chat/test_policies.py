from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.chat.errors import MessageTooLongError
from chatserver.chat.policies import ATTACHMENTS_BYTES, METADATA_BYTES, body_hash, check_size
from chatserver.chat.schemas import SendMessage
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7

ROOM = str(uuid7())
REPLY = str(uuid7())


def message(**members: Any) -> SendMessage:
    return SendMessage.model_validate(
        {"room_id": ROOM, "content": "hello", "client_msg_id": "c-1"} | members
    )


class TestCheckSize:
    @pytest.mark.parametrize(
        ("text", "unit"),
        [
            ("x" * 100, None),
            ("x" * 101, "characters"),
            ("ü" * 100, None),
            ("€" * 100, None),
            ("😀" * 75, None),
            ("😀" * 75 + "x", "bytes"),
            ("😀" * 100, "bytes"),
            ("😀" * 101, "characters"),
        ],
    )
    def test_text_is_measured_in_characters_and_in_bytes(self, text: str, unit: str | None) -> None:
        if unit is None:
            check_size(message(content=text), characters=100, octets=300)
            return
        with pytest.raises(MessageTooLongError) as caught:
            check_size(message(content=text), characters=100, octets=300)
        assert caught.value.details["unit"] == unit

    @pytest.mark.parametrize(
        ("members", "field"),
        [
            ({"metadata": {"a": "x" * METADATA_BYTES}}, "metadata"),
            ({"attachments": [{"a": "x" * ATTACHMENTS_BYTES}]}, "attachments"),
        ],
    )
    def test_the_rest_is_measured_in_bytes(self, members: dict[str, Any], field: str) -> None:
        with pytest.raises(PayloadInvalidError) as caught:
            check_size(message(**members), characters=100, octets=300)
        assert caught.value.issues[0]["field"] == field

    def test_a_picture_needs_no_words_but_nothing_at_all_is_refused(self) -> None:
        picture = message(content="", attachments=[{"url": "https://example.org/cat.png"}])
        check_size(picture, characters=100, octets=300)
        with pytest.raises(PayloadInvalidError) as caught:
            check_size(message(content=""), characters=100, octets=300)
        assert caught.value.issues[0]["field"] == "content"

    def test_as_much_as_is_allowed_is_allowed(self) -> None:
        room_for = METADATA_BYTES - len('{"a":""}')
        check_size(message(metadata={"a": "x" * room_for}), characters=100, octets=300)

    @given(st.text(max_size=40, min_size=1), st.integers(1, 40), st.integers(1, 120))
    def test_it_is_refused_exactly_when_a_limit_is_passed(
        self, text: str, characters: int, octets: int
    ) -> None:
        asked = message().model_copy(update={"content": text})
        fits = len(text) <= characters and len(text.encode()) <= octets
        try:
            check_size(asked, characters=characters, octets=octets)
        except MessageTooLongError:
            assert not fits
        else:
            assert fits


class TestBodyHash:
    @pytest.mark.parametrize(
        "members",
        [
            {},
            {"client_msg_id": "another"},
            {"room_id": str(uuid7())},
            {"metadata": {}, "attachments": [], "mentions": [], "reply_to": None},
        ],
    )
    def test_a_retry_has_the_same(self, members: dict[str, Any]) -> None:
        assert body_hash(message(**members)) == body_hash(message())

    def test_the_order_of_members_does_not_count(self) -> None:
        one = message(metadata={"a": 1, "b": {"c": 2, "d": 3}})
        assert body_hash(one) == body_hash(message(metadata={"b": {"d": 3, "c": 2}, "a": 1}))

    def test_whatever_differs_makes_another(self) -> None:
        others: list[dict[str, Any]] = [
            {},
            {"content": "hello "},
            {"reply_to": REPLY},
            {"metadata": {"a": 1}},
            {"metadata": {"a": "1"}},
            {"metadata": {"a": True}},
            {"attachments": [{"a": 1}]},
            {"attachments": [{"a": 1}, {}]},
            {"mentions": ["a"]},
            {"mentions": ["a", "b"]},
            {"mentions": ["b", "a"]},
        ]
        assert len({body_hash(message(**members)) for members in others}) == len(others)
