"""Who may send, how often and where: decided by the one function that stores, under the lock."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from chatserver.chat.errors import MessageNotFoundError, SlowModeError
from chatserver.chat.service import ChatService
from chatserver.kernel.errors import DomainError, IdempotencyConflictError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import RoomArchivedError, RoomMutedError, RoomReadOnlyError
from tests.support.talk import Talk, draft_of


async def role(talk: Talk, who: Principal, name: str) -> None:
    await talk.run("update member set role = $2 where user_id = $1", who.user_id, name)


def names(outcomes: list[Any]) -> list[str]:
    return [each.outcome for each in outcomes]


class TestSlowMode:
    async def test_a_member_waits_between_two_messages(self, talk: Talk, master: Principal) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, carol)
        await talk.run("update room set slow_mode_s = 60")
        await talk.send(bob, room.id)
        with pytest.raises(SlowModeError) as caught:
            await talk.send(bob, room.id)
        assert 59_000 < (caught.value.retry_after_ms or 0) <= 60_000
        # Everyone's pause is his own; moderators and the application have none.
        await talk.send(carol, room.id)
        for _ in range(2):
            await talk.send(alice, room.id)
            await talk.send(master, room.id)
        await talk.run("update member set last_sent_at = now() - interval '61 seconds'")
        await talk.send(bob, room.id)
        assert [row["seq"] for row in await talk.log(room.id)] == list(range(1, 9))

    async def test_a_retry_of_what_was_sent_is_no_second_message(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        await talk.run("update room set slow_mode_s = 60")
        first = await talk.send(bob, room.id, client_msg_id="c1")
        again = await talk.send(bob, room.id, client_msg_id="c1")
        assert again.duplicate
        assert str(again.message.id) == str(first.message.id)
        with pytest.raises(IdempotencyConflictError):
            await talk.send(bob, room.id, "other", client_msg_id="c1")

    async def test_of_several_in_one_batch_the_first_is_stored(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room, other = await talk.room(alice, bob), await talk.room(alice, bob)
        await talk.run("update room set slow_mode_s = 60 where id = $1", room.id)
        outcomes = await talk.store(
            draft_of(bob, room.id, "1"),
            draft_of(bob, room.id, "2"),
            draft_of(bob, other.id, "1"),
            draft_of(bob, other.id, "2"),
            draft_of(alice, room.id, "1"),
            draft_of(alice, room.id, "2"),
        )
        assert names(outcomes) == ["stored", "message.slow_mode", *["stored"] * 4]
        assert outcomes[1].wait_ms == 60_000
        assert [each.seq for each in outcomes] == [2, None, 2, 3, 3, 4]
        [state] = await talk.rows("select last_seq, msg_no from room where id = $1", room.id)
        assert state == {"last_seq": 4, "msg_no": 3}


class TestVoice:
    async def test_the_muted_may_not_until_it_ends(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        mute = "update member set muted_until = $2 where user_id = $1"
        [now] = await talk.rows("select now() + interval '10 seconds' as soon")
        await talk.run(mute, bob.user_id, now["soon"])
        with pytest.raises(RoomMutedError) as caught:
            await talk.send(bob, room.id)
        assert 9_000 < (caught.value.retry_after_ms or 0) <= 10_000
        await talk.run("update member set muted_until = 'infinity'")
        with pytest.raises(RoomMutedError) as caught:
            await talk.send(bob, room.id)
        assert caught.value.retry_after_ms is None
        await talk.run("update member set muted_until = now() - interval '1 second'")
        await talk.send(bob, room.id)

    @pytest.mark.parametrize(
        ("lowest", "may"),
        [
            ("guest", {"guest", "member", "moderator", "admin", "owner"}),
            ("member", {"member", "moderator", "admin", "owner"}),
            ("moderator", {"moderator", "admin", "owner"}),
            ("owner", {"owner"}),
        ],
    )
    async def test_a_room_says_from_which_role_on(
        self, talk: Talk, master: Principal, lowest: str, may: set[str]
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob, kind="channel")
        await talk.run("update room set post_role = $1", lowest)
        allowed = set()
        for name in ("guest", "member", "moderator", "admin", "owner"):
            await role(talk, bob, name)
            try:
                await talk.send(bob, room.id)
            except RoomReadOnlyError:
                continue
            allowed.add(name)
        assert allowed == may
        await talk.send(master, room.id)

    async def test_an_archived_room_is_closed_to_all(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        first = await talk.send(alice, room.id, client_msg_id="c1")
        await talk.run("update room set archived_at = now(), is_active = false")
        for who in (alice, master):
            with pytest.raises(RoomArchivedError):
                await talk.send(who, room.id)
        assert (await talk.send(alice, room.id, client_msg_id="c1")).duplicate
        assert len(await talk.log(room.id)) == 2
        assert first.message.seq == 2


class TestCounts:
    async def test_silent_ones_in_a_batch_take_a_seq_and_no_number(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        outcomes = await talk.store(
            *(draft_of(alice, room.id, str(n), silent=n % 2 == 1) for n in range(5))
        )
        assert [(each.seq, each.msg_no) for each in outcomes] == [
            (2, 1),
            (3, 1),
            (4, 2),
            (5, 2),
            (6, 3),
        ]
        [row] = await talk.rows("select read_seq, read_msg_no from member")
        assert row == {"read_seq": 6, "read_msg_no": 3}

    async def test_replies_in_a_batch_are_counted(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        root = (await talk.send(alice, room.id)).message
        outcomes = await talk.store(
            *(draft_of(alice, room.id, str(n), reply_to=UUID(str(root.id))) for n in range(3))
        )
        # All of them say how many there are by then.
        assert [each.reply_count for each in outcomes] == [3, 3, 3]
        assert {str(each.thread_id) for each in outcomes} == {str(root.id)}
        [row] = await talk.rows("select reply_count from message where id = $1", root.id)
        assert row == {"reply_count": 3}
        await asyncio.gather(
            *(talk.send(alice, room.id, str(n), reply_to=root.id) for n in range(10))
        )
        [row] = await talk.rows("select reply_count from message where id = $1", root.id)
        assert row == {"reply_count": 13}


class GoneError(DomainError):
    kind = MessageNotFoundError.kind
    code = "file.not_found"


class _Files:
    """Where files are, in so far as a message needs them."""

    def __init__(self) -> None:
        self.known = {"a": {"file_id": "a", "size": 1}}

    async def check(
        self, principal: Principal, room_id: UUID, attachments: Any
    ) -> list[dict[str, Any]]:
        if any(each.get("file_id", "a") not in self.known for each in attachments):
            raise GoneError
        return [self.known.get(each.get("file_id"), each) for each in attachments]


class TestAttachments:
    async def test_files_are_checked_and_kept_as_they_are_known(
        self, talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = _Files()
        chat: ChatService = talk.container.chat
        monkeypatch.setattr(chat, "_attachments", files)
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        link = {"url": "https://example.org"}
        sent = await talk.send(
            alice, room.id, client_msg_id="c1", attachments=[{"file_id": "a"}, link]
        )
        assert sent.message.attachments == [{"file_id": "a", "size": 1}, link]
        with pytest.raises(GoneError):
            await talk.send(alice, room.id, attachments=[{"file_id": uuid7().hex}])
        # A file that went since then is no reason to refuse the retry of what was sent.
        files.known.clear()
        again = await talk.send(
            alice, room.id, client_msg_id="c1", attachments=[{"file_id": "a"}, link]
        )
        assert (again.duplicate, again.message.attachments) == (True, sent.message.attachments)
        with pytest.raises(GoneError):
            await talk.send(alice, room.id, "new", attachments=[{"file_id": "a"}])
        assert len(await talk.log(room.id)) == 2
