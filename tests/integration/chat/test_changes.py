"""Edits, deletions, reactions and pins: what is stored, told, replayed and refused."""

from collections.abc import Awaitable
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatserver.chat.changes import EMOJI_PER_MESSAGE, EMOJI_PER_USER, PINS_PER_ROOM, VERSIONS_KEPT
from chatserver.chat.errors import (
    EditWindowOverError,
    MessageConflictError,
    MessageNotFoundError,
    MessageNotYoursError,
    MessageTooLongError,
    TooManyPinsError,
    TooManyReactionsError,
)
from chatserver.chat.schemas import (
    Changed,
    EditMessage,
    Edits,
    ListReactions,
    ListThread,
    MessageRef,
    Pinned,
    React,
    Reacted,
    Replay,
    RoomRequest,
)
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import RoleMissingError, RoomArchivedError, RoomMutedError
from chatserver.rooms.schemas import UpdateMember
from tests.support.talk import Talk


async def edit(talk: Talk, who: Principal, message_id: UUID, **changes: Any) -> Changed:
    async with talk.container.open_changes() as service:
        return await service.edit(who, EditMessage(message_id=message_id, **changes))


async def delete(talk: Talk, who: Principal, message_id: UUID) -> Changed:
    async with talk.container.open_changes() as service:
        return await service.delete(who, MessageRef(message_id=message_id))


async def react(talk: Talk, who: Principal, message_id: UUID, emoji: str = "👍") -> Reacted:
    async with talk.container.open_changes() as service:
        return await service.react(who, React(message_id=message_id, emoji=emoji))


async def unreact(talk: Talk, who: Principal, message_id: UUID, emoji: str = "👍") -> Reacted:
    async with talk.container.open_changes() as service:
        return await service.unreact(who, React(message_id=message_id, emoji=emoji))


async def pin(talk: Talk, who: Principal, message_id: UUID) -> Pinned:
    async with talk.container.open_changes() as service:
        return await service.pin(who, MessageRef(message_id=message_id))


async def unpin(talk: Talk, who: Principal, message_id: UUID) -> Pinned:
    async with talk.container.open_changes() as service:
        return await service.unpin(who, MessageRef(message_id=message_id))


async def edits(talk: Talk, who: Principal, message_id: UUID) -> Edits:
    async with talk.container.open_changes() as service:
        return await service.edits(who, MessageRef(message_id=message_id))


async def replayed(talk: Talk, who: Principal, room_id: UUID) -> list[dict[str, Any]]:
    found = await talk.container.catch_up.replay(who, Replay(room_id=room_id, after_seq=0))
    return found.events


async def give_role(talk: Talk, owner: Principal, room_id: UUID, who: Principal, role: str) -> None:
    async with talk.container.open_members() as members:
        await members.update(
            owner,
            UpdateMember.model_validate(
                {"room_id": room_id, "user_id": who.external_id, "role": role}
            ),
        )


class TestEdit:
    async def test_a_new_text_is_a_fact_and_the_old_one_never_comes_back(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        message = (await talk.send(alice, room.id, "secert")).message
        changed = (await edit(talk, alice, message.id, content="secret")).message
        assert (changed.content, changed.version, changed.seq) == ("secret", 2, message.seq)
        assert changed.edited_at is not None
        live = talk.shown.of(room.id)
        assert [(fact["type"], fact["seq"]) for fact in live[1:]] == [
            ("message.created", 2),
            ("message.updated", 3),
        ]
        assert live[2]["actor"] == {"type": "user", "id": "alice"}
        assert live[2]["data"]["message"] == changed.model_dump(mode="json")
        told = await replayed(talk, bob, room.id)
        assert told[2] == live[2]
        # The first fact shows the message as it is now, and says so; the last one is the last.
        assert told[1] == {**live[1], "data": live[2]["data"], "superseded": True}
        assert "secert" not in str(told)
        again = (await edit(talk, alice, message.id, content="Secret")).message
        told = await replayed(talk, bob, room.id)
        assert [fact.get("superseded") for fact in told] == [None, True, True, None]
        assert told[3]["data"]["message"] == again.model_dump(mode="json")

    async def test_what_it_said_before_is_kept_for_its_author_and_moderators(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, carol)
        message = (await talk.send(bob, room.id, "1")).message
        for text in ("2", "3"):
            await edit(talk, bob, message.id, content=text)
        for who in (bob, alice, master):
            kept = await edits(talk, who, message.id)
            assert [(each.version, each.content) for each in kept.items] == [(1, "1"), (2, "2")]
            assert kept.version == 3
        with pytest.raises(MessageNotYoursError):
            await edits(talk, carol, message.id)
        await delete(talk, bob, message.id)
        assert (await edits(talk, bob, message.id)).items == []
        assert await talk.rows("select * from message_edit") == []

    async def test_of_very_many_versions_the_newest_are_kept(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        message = (await talk.send(alice, room.id, "0")).message
        await talk.run("update message set version = 100 where id = $1", message.id)
        await talk.run(
            "insert into message_edit (message_id, version, client_id, content)"
            " select $1, n, $2, 'old' from generate_series(1, 99) n",
            message.id,
            alice.client_id,
        )
        await edit(talk, alice, message.id, content="1")
        kept = await talk.rows("select min(version), max(version), count(*) from message_edit")
        assert kept == [{"min": 51, "max": 100, "count": VERSIONS_KEPT}]

    async def test_an_edit_of_an_edit_is_refused_with_the_version_there_is(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        message = (await talk.send(alice, room.id)).message
        await edit(talk, alice, message.id, content="first", if_version=1)
        with pytest.raises(MessageConflictError) as caught:
            await edit(talk, alice, message.id, content="second", if_version=1)
        assert caught.value.details == {"version": 2}
        # A retry of what succeeded is no conflict, and no further fact.
        same = await edit(talk, alice, message.id, content="first", if_version=1)
        assert same.message.version == 2
        assert len(await talk.log(room.id)) == 3

    async def test_only_the_author_and_the_application_edit(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        message = (await talk.send(bob, room.id)).message
        with pytest.raises(MessageNotYoursError):
            await edit(talk, alice, message.id, content="put into his mouth")
        assert (await edit(talk, master, message.id, content="x")).message.content == "x"
        system = (await talk.send(master, room.id)).message
        with pytest.raises(MessageNotYoursError):
            await edit(talk, bob, system.id, content="y")

    async def test_after_the_client_s_edit_window_it_stays(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        message = (await talk.send(alice, room.id)).message
        await talk.run(
            'update client set settings = \'{"chat": {"edit_window_s": 60}}\' where id = $1',
            master.client_id,
        )
        await edit(talk, alice, message.id, content="soon")
        await talk.run("update message set created_at = created_at - interval '61 seconds'")
        with pytest.raises(EditWindowOverError) as caught:
            await edit(talk, alice, message.id, content="late")
        assert caught.value.details == {"edit_window_s": 60}
        await edit(talk, master, message.id, content="by the application")
        assert (await delete(talk, alice, message.id)).message.deleted_at is not None

    async def test_the_same_limits_as_for_sending(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        message = (await talk.send(alice, room.id)).message
        with pytest.raises(MessageTooLongError):
            await edit(talk, alice, message.id, content="x" * 20_001)
        assert len(await talk.log(room.id)) == 2


class TestDelete:
    async def test_a_tombstone_stays_and_nothing_of_the_message(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        sent = await talk.send(
            alice,
            room.id,
            "canary",
            mentions=["bob"],
            metadata={"canary": 1},
            attachments=[{"url": "canary"}],
        )
        await edit(talk, alice, sent.message.id, content="canary too")
        await react(talk, bob, sent.message.id)
        await pin(talk, bob, sent.message.id)
        gone = (await delete(talk, alice, sent.message.id)).message
        assert (gone.content, gone.seq, gone.msg_no, gone.sender_id) == ("", 2, 1, "alice")
        assert gone.deleted_at is not None
        assert (gone.attachments, gone.mentions, gone.metadata) == ([], [], {})
        assert (gone.reactions, gone.pinned) == ([], False)
        told = await replayed(talk, bob, room.id)
        assert "canary" not in str(told)
        assert [fact["type"] for fact in told[1:]] == [
            "message.created",
            "message.updated",
            "reaction.changed",
            "pin.changed",
            "message.deleted",
        ]
        assert told[-1] == talk.shown.of(room.id)[-1]
        for table in ("message_edit", "reaction", "mention"):
            assert await talk.rows(f"select * from {table}") == []
        assert await delete(talk, alice, sent.message.id) == Changed(message=gone)
        assert len(await talk.log(room.id)) == len(told)

    async def test_moderators_delete_and_it_is_noted_who(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, carol)
        message = (await talk.send(bob, room.id)).message
        with pytest.raises(MessageNotYoursError):
            await delete(talk, carol, message.id)
        await give_role(talk, alice, room.id, carol, "moderator")
        await delete(talk, carol, message.id)
        [noted] = await talk.rows(
            "select actor, subject from audit where action = 'message.delete'"
        )
        assert noted == {"actor": "user:carol", "subject": f"message:{message.id}"}

    async def test_nothing_more_can_be_done_with_it(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        message = (await talk.send(alice, room.id)).message
        await delete(talk, alice, message.id)
        for again in (
            edit(talk, alice, message.id, content="back"),
            react(talk, alice, message.id),
            pin(talk, alice, message.id),
        ):
            with pytest.raises(MessageNotFoundError):
                await again
        assert (await unpin(talk, alice, message.id)).pinned is False
        assert len(await talk.log(room.id)) == 3

    async def test_a_retry_of_its_send_gives_the_tombstone(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        sent = await talk.send(alice, room.id, "x", client_msg_id="c1")
        await delete(talk, alice, sent.message.id)
        again = await talk.send(alice, room.id, "x", client_msg_id="c1")
        assert (again.duplicate, again.message.content) == (True, "")


class TestReactions:
    async def test_counts_flags_and_facts(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        message = (await talk.send(alice, room.id)).message
        await react(talk, alice, message.id, "👍")
        await react(talk, bob, message.id, "🎉")
        done = await react(talk, bob, message.id, "👍")
        assert (done.mine, done.counts) == (True, {"👍": 2, "🎉": 1})
        # The same once more is no second one.
        assert await react(talk, bob, message.id, "👍") == done
        back = await unreact(talk, bob, message.id, "🎉")
        assert (back.mine, back.counts) == (False, {"👍": 2})
        assert await unreact(talk, bob, message.id, "🎉") == back
        live = talk.shown.of(room.id)[2:]
        assert [fact["data"] for fact in live] == [
            {
                "message_id": str(message.id),
                "emoji": emoji,
                "user_id": who,
                "op": op,
                "counts": counts,
            }
            for emoji, who, op, counts in (
                ("👍", "alice", "add", {"👍": 1}),
                ("🎉", "bob", "add", {"👍": 1, "🎉": 1}),
                ("👍", "bob", "add", {"👍": 2, "🎉": 1}),
                ("🎉", "bob", "remove", {"👍": 2}),
            )
        ]
        # A replay counts what there is by then; all else is as it was.
        now = [{**fact, "data": {**fact["data"], "counts": {"👍": 2}}} for fact in live]
        assert (await replayed(talk, bob, room.id))[2:] == now
        logged = (await talk.log(room.id))[2:]
        assert all("counts" not in orjson.loads(row["data"]) for row in logged)
        [seen] = [await talk.container.chat.get(bob, MessageRef(message_id=message.id))]
        assert seen.model_dump(mode="json")["reactions"] == [
            {"emoji": "👍", "count": 2, "me": True}
        ]
        async with talk.container.open_changes() as changes:
            listed = await changes.reactions(bob, ListReactions(message_id=message.id))
        assert [(each.user_id, each.emoji) for each in listed.items] == [
            ("alice", "👍"),
            ("bob", "👍"),
        ]

    async def test_floods_end_at_a_limit(self, talk: Talk, master: Principal) -> None:
        people = await talk.users(master, *(f"u{n}" for n in range(4)))
        room = await talk.room(*people)
        message = (await talk.send(people[0], room.id)).message
        for n in range(EMOJI_PER_USER):
            await react(talk, people[0], message.id, f"e{n}")
        with pytest.raises(TooManyReactionsError) as caught:
            await react(talk, people[0], message.id, "more")
        assert caught.value.details == {"max": EMOJI_PER_USER, "per": "user"}
        for n in range(EMOJI_PER_USER, EMOJI_PER_MESSAGE):
            await react(talk, people[1 + n // EMOJI_PER_USER], message.id, f"e{n}")
        with pytest.raises(TooManyReactionsError):
            await react(talk, people[3], message.id, "more")
        # What others gave already is always open.
        assert (await react(talk, people[3], message.id, "e0")).counts["e0"] == 2
        rows = await talk.rows("select count(*) from reaction")
        assert rows == [{"count": EMOJI_PER_MESSAGE + 1}]


class TestPins:
    async def test_a_pin_is_in_the_snapshot_until_it_is_taken_off(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        first, second = [(await talk.send(alice, room.id, text)).message for text in "12"]
        await pin(talk, bob, second.id)
        await pin(talk, alice, first.id)
        await pin(talk, alice, first.id)
        seen = await talk.container.catch_up.snapshot(bob, RoomRequest(room_id=room.id))
        assert [message.content for message in seen.pins] == ["2", "1"]
        await unpin(talk, bob, second.id)
        facts = talk.shown.of(room.id)[3:]
        assert [fact["data"]["pinned"] for fact in facts] == [True, True, False]
        seen = await talk.container.catch_up.snapshot(bob, RoomRequest(room_id=room.id))
        assert [message.content for message in seen.pins] == ["1"]

    async def test_in_a_channel_moderators_pin(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob, kind="channel")
        message = (await talk.send(bob, room.id)).message
        with pytest.raises(RoleMissingError):
            await pin(talk, bob, message.id)
        await pin(talk, alice, message.id)

    async def test_a_room_has_so_many(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        message = (await talk.send(alice, room.id)).message
        await talk.run(
            "insert into message (id, client_id, room_id, seq, msg_no, sender, sender_key,"
            "  client_msg_id, body_hash, content, status, pinned)"
            " select gen_random_uuid(), $1, $2, n, n, 'user', 'x', n, '', 'hi', 'complete', true"
            " from generate_series(100, $3::int) n",
            alice.client_id,
            room.id,
            99 + PINS_PER_ROOM,
        )
        with pytest.raises(TooManyPinsError):
            await pin(talk, alice, message.id)


class TestThreads:
    async def test_replies_and_replies_to_replies_are_one_thread(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        root = (await talk.send(alice, room.id, "root")).message
        one = (await talk.send(bob, room.id, "1", reply_to=root.id)).message
        two = (await talk.send(alice, room.id, "2", reply_to=one.id)).message
        await talk.send(alice, room.id, "elsewhere")
        threads = [each.model_dump(mode="json")["thread_id"] for each in (root, one, two)]
        assert threads == [None, str(root.id), str(root.id)]
        assert str(two.reply_to) == str(one.id)

        async def read(message_id: UUID, **where: Any) -> tuple[str, str, int, bool]:
            found = await talk.container.chat.thread(
                bob, ListThread(message_id=message_id, **where)
            )
            return (
                found.message.content,
                "".join(each.content for each in found.items),
                found.count,
                found.has_more,
            )

        for message_id in (root.id, one.id, two.id):
            assert await read(message_id) == ("root", "12", 2, False)
        assert await read(root.id, limit=1) == ("root", "1", 2, True)
        assert await read(root.id, after_seq=one.seq) == ("root", "2", 2, False)
        assert await read(root.id, before_seq=two.seq, limit=1) == ("root", "1", 2, False)
        await delete(talk, bob, one.id)
        assert await read(root.id) == ("root", "2", 2, False)

    async def test_whoever_came_later_reads_the_rest_of_a_thread(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, history="joined")
        root = (await talk.send(alice, room.id, "secret")).message
        await talk.send(alice, room.id, "secret, too", reply_to=root.id)
        await talk.invite(alice, room.id, bob)
        reply = (await talk.send(alice, room.id, "open", reply_to=root.id)).message
        found = await talk.container.chat.thread(bob, ListThread(message_id=reply.id))
        assert found.message.content == "open"
        assert [each.content for each in found.items] == ["open"]
        with pytest.raises(MessageNotFoundError):
            await talk.container.chat.thread(bob, ListThread(message_id=root.id))

    async def test_what_one_may_not_read_can_t_be_replied_to(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, history="joined")
        message = (await talk.send(alice, room.id)).message
        await talk.invite(alice, room.id, bob)
        with pytest.raises(MessageNotFoundError):
            await talk.send(bob, room.id, reply_to=message.id)


class TestStrangers:
    async def test_whoever_may_not_read_a_message_finds_none(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        other = await talk.client("other")
        mallory = await talk.user(other, "mallory")
        room = await talk.room(alice, bob, history="joined")
        message = (await talk.send(alice, room.id)).message
        await talk.invite(alice, room.id, carol)
        await talk.remove(alice, room.id, bob)
        before = await talk.log(room.id)
        for who in (bob, carol, mallory, other):
            for message_id in (message.id, uuid7()):
                tries: list[Awaitable[Any]] = [
                    edit(talk, who, message_id, content="x"),
                    delete(talk, who, message_id),
                    pin(talk, who, message_id),
                    unpin(talk, who, message_id),
                    edits(talk, who, message_id),
                    talk.container.chat.thread(who, ListThread(message_id=message_id)),
                ]
                if who.is_user:
                    tries += [react(talk, who, message_id), unreact(talk, who, message_id)]
                for attempt in tries:
                    with pytest.raises(MessageNotFoundError):
                        await attempt
        assert await talk.log(room.id) == before

    async def test_the_muted_and_the_archived_room_change_nothing(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        message = (await talk.send(bob, room.id)).message
        await talk.run(
            "update member set muted_until = now() + interval '1 hour' where user_id = $1",
            bob.user_id,
        )
        for attempt in (
            edit(talk, bob, message.id, content="x"),
            react(talk, bob, message.id),
            pin(talk, bob, message.id),
        ):
            with pytest.raises(RoomMutedError) as caught:
                await attempt
            assert 3_590_000 < (caught.value.retry_after_ms or 0) <= 3_600_001
        assert (await delete(talk, bob, message.id)).message.deleted_at is not None
        other = (await talk.send(alice, room.id)).message
        await talk.run("update room set archived_at = now()")
        with pytest.raises(RoomArchivedError):
            await react(talk, alice, other.id)
