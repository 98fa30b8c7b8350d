"""Emoji, mentions, and the pure decisions about changes of messages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from chatserver.chat import policies
from chatserver.chat.errors import EditWindowOverError
from chatserver.chat.models import Message
from chatserver.chat.schemas import EditMessage, React, SendMessage
from chatserver.clients.schemas import OwnClientUpdate
from chatserver.kernel.ids import uuid7

ROOM = uuid7()
NOW = datetime(2026, 11, 20, tzinfo=UTC)


class TestEmoji:
    @pytest.mark.parametrize(
        "emoji",
        ["👍", "👍🏽", "👨‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "❤️", "1️⃣", "🇩🇪", "party", ":party:", "+1", "é", "x" * 64],
    )
    def test_every_kind_is_taken(self, emoji: str) -> None:
        assert React(message_id=ROOM, emoji=emoji).emoji == emoji

    @pytest.mark.parametrize(
        "emoji",
        ["", " ", "a b", "\n", "\u200b", "\u200d\u200d", "\ufe0f", "a\u2028", "\x07", "x" * 65],
    )
    def test_what_nobody_sees_or_has_spaces_is_refused(self, emoji: str) -> None:
        with pytest.raises(ValidationError):
            React(message_id=ROOM, emoji=emoji)

    def test_the_same_in_two_encodings_is_one(self) -> None:
        assert React(message_id=ROOM, emoji="e\u0301").emoji == "é"


class TestMentions:
    @pytest.mark.parametrize(
        "name", ["ann", "@here", "a:b+c@d", "!here", "!everyone", "!role:guest", "!role:owner"]
    )
    def test_people_roles_and_all(self, name: str) -> None:
        made = SendMessage(room_id=ROOM, content="x", client_msg_id="c", mentions=[name])
        assert made.mentions == [name]

    @pytest.mark.parametrize(
        "name", ["", "!", "!Here", "!role:", "!role:king", "role!", "a b", "!here\n", "!everyone!"]
    )
    def test_nothing_else(self, name: str) -> None:
        with pytest.raises(ValidationError):
            SendMessage(room_id=ROOM, content="x", client_msg_id="c", mentions=[name])


class TestEdits:
    def test_one_names_what_changes(self) -> None:
        with pytest.raises(ValidationError, match="at least one"):
            EditMessage(message_id=ROOM)
        with pytest.raises(ValidationError):
            EditMessage(message_id=ROOM, content="")

    @pytest.mark.parametrize(
        ("command", "changed"),
        [
            ({"content": "old"}, {}),
            ({"content": "new"}, {"content": "new"}),
            ({"mentions": ["ann", "ann"]}, {}),
            ({"mentions": []}, {"mentions": []}),
            ({"metadata": {"a": 2}, "content": "old"}, {"details": {"a": 2}}),
        ],
    )
    def test_only_what_differs_is_changed(
        self, command: dict[str, Any], changed: dict[str, Any]
    ) -> None:
        now: dict[str, Any] = {"content": "old", "mentions": ["ann"], "details": {"a": 1}}
        message = Message(**now)
        edit = EditMessage(message_id=ROOM, **command)
        assert policies.changes(message, edit) == changed

    @pytest.mark.parametrize(("window_s", "age_s"), [(None, 10**9), (60, 60), (0, 0)])
    def test_within_the_window(self, window_s: int | None, age_s: int) -> None:
        policies.check_edit_window(NOW - timedelta(seconds=age_s), NOW, window_s)

    @pytest.mark.parametrize(("window_s", "age_s"), [(60, 61), (0, 1)])
    def test_after_it(self, window_s: int, age_s: int) -> None:
        with pytest.raises(EditWindowOverError):
            policies.check_edit_window(NOW - timedelta(seconds=age_s), NOW, window_s)

    def test_a_client_sets_it(self) -> None:
        update = OwnClientUpdate.model_validate({"chat": {"edit_window_s": 900}})
        assert update.changed_settings() == {"chat": {"edit_window_s": 900}}
        assert OwnClientUpdate.model_validate({"chat": None}).changed_settings() == {"chat": None}
        with pytest.raises(ValidationError):
            OwnClientUpdate.model_validate({"chat": {"edit_window_s": -1}})


class TestCounts:
    def test_the_order_of_the_first_of_each_stays(self) -> None:
        counts: list[dict[str, Any]] = []
        for emoji, by in (("b", 1), ("a", 1), ("b", 1), ("a", -1), ("a", 1)):
            counts = policies.counted(counts, emoji, by)
        assert counts == [{"emoji": "b", "count": 2}, {"emoji": "a", "count": 1}]


class TestFingerprint:
    def test_silence_makes_another_message_and_its_absence_the_one_of_before(self) -> None:
        loud = SendMessage(room_id=ROOM, content="x", client_msg_id="c")
        assert policies.body_hash(loud) != policies.body_hash(
            loud.model_copy(update={"silent": True})
        )
