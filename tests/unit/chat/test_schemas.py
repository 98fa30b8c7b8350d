from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from chatserver.chat.schemas import ListEvents, ListMessages, PostMessage, Replay, SendMessage, Sync
from chatserver.kernel.ids import uuid7

ROOM = str(uuid7())
MESSAGE = {"room_id": ROOM, "content": "hello", "client_msg_id": "c-1"}


class TestSendMessage:
    @pytest.mark.parametrize(
        ("members", "field"),
        [
            ({"room_id": ROOM.upper()}, ("room_id",)),
            ({"content": None}, ("content",)),
            ({"content": 5}, ("content",)),
            ({"client_msg_id": ""}, ("client_msg_id",)),
            ({"client_msg_id": "x" * 65}, ("client_msg_id",)),
            ({"client_msg_id": None}, ("client_msg_id",)),
            ({"reply_to": "x"}, ("reply_to",)),
            ({"attachments": [{}] * 31}, ("attachments",)),
            ({"attachments": ["x"]}, ("attachments", 0)),
            ({"mentions": ["a"] * 101}, ("mentions",)),
            ({"mentions": ["a b"]}, ("mentions", 0)),
            ({"metadata": None}, ("metadata",)),
            ({"sender_id": "bob"}, ("sender_id",)),
        ],
    )
    def test_bad_input_is_refused_with_the_field_named(
        self, members: dict[str, Any], field: tuple[object, ...]
    ) -> None:
        with pytest.raises(ValidationError) as caught:
            SendMessage.model_validate(MESSAGE | members)
        assert caught.value.errors()[0]["loc"] == field

    def test_as_much_as_is_allowed_is_allowed(self) -> None:
        SendMessage.model_validate(
            MESSAGE
            | {
                "client_msg_id": "~ " * 32,
                "attachments": [{}] * 30,
                "mentions": [f"u{n}" for n in range(100)],
            }
        )

    def test_by_rest_the_id_may_be_left_out_and_a_sender_named(self) -> None:
        posted = PostMessage.model_validate({"room_id": ROOM, "content": "x", "sender_id": "bob"})
        assert (posted.client_msg_id, posted.sender_id) == (None, "bob")


class TestSync:
    def test_rooms_are_named_by_their_ids(self) -> None:
        asked = Sync.model_validate({"rooms": {ROOM: {"epoch": "1.1", "seq": 4}}})
        assert list(asked.rooms) == [UUID(ROOM)]

    @pytest.mark.parametrize(
        "rooms",
        [
            {"x": {"epoch": "1.1", "seq": 4}},
            {ROOM.upper(): {"epoch": "1.1", "seq": 4}},
            {ROOM: {"epoch": "1.1"}},
            {ROOM: {"epoch": "1.1", "seq": -1}},
            {ROOM: {"epoch": "1.1", "seq": 2**53}},
            {ROOM: {"epoch": "1" * 65, "seq": 1}},
            {str(uuid7()): {"epoch": "1.1", "seq": 1} for _ in range(501)},
        ],
    )
    def test_bad_positions_are_refused(self, rooms: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as caught:
            Sync.model_validate({"rooms": rooms})
        assert caught.value.errors()[0]["loc"][0] == "rooms"

    @pytest.mark.parametrize("cursor", ["", "x" * 513, 5])
    def test_impossible_cursors_are_refused(self, cursor: object) -> None:
        with pytest.raises(ValidationError):
            Sync.model_validate({"cursor": cursor})


class TestLists:
    @pytest.mark.parametrize(
        ("model", "members"),
        [
            (ListMessages, {"limit": 101}),
            (ListMessages, {"limit": 0}),
            (ListMessages, {"after_seq": -1}),
            (ListMessages, {"before_seq": "3"}),
            (ListEvents, {"limit": 301}),
            (ListEvents, {"after_seq": 1.0}),
            (Replay, {"after_seq": 0, "limit": 301}),
            (Replay, {}),
        ],
    )
    def test_anything_out_of_bounds_is_refused(
        self, model: type[ListMessages | ListEvents | Replay], members: dict[str, Any]
    ) -> None:
        with pytest.raises(ValidationError):
            model.model_validate({"room_id": ROOM} | members)
