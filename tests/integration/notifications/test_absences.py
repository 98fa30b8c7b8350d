"""Who was not there is told of messages: by mention, in direct rooms, or by level `all`."""

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text

from chatserver.chat.schemas import MarkRead, MessageRef
from chatserver.kernel.principal import Caller, Principal
from chatserver.notifications.consent.schemas import PreferencesPatch
from chatserver.notifications.inbox.schemas import NotificationList, NotificationOut
from chatserver.rooms.schemas import UpdateMember
from chatserver.transfer.repository import ImportRepository
from tests.support.talk import Talk
from tests.support.talking import master, second, talk
from workers.absences import AbsenceLane

__all__ = ["master", "second", "talk"]


class Nobody:
    """Who is there: whoever is named."""

    def __init__(self, *people: Principal) -> None:
        self.there = {each.user_id for each in people}

    async def __call__(self, users: Sequence[UUID]) -> set[UUID]:
        return self.there & set(users)


async def look(talk: Talk, present: Nobody | None = None) -> int:
    """Let the time of every notice come, and have a worker look."""
    await talk.run("update message_notice set due_at = clock_timestamp()")
    absences = talk.container.absences
    lane = AbsenceLane(
        notices=absences.lookup,
        open_absences=absences.open_absences,
        present=present or Nobody(),
    )
    return await lane.look()


async def inbox(talk: Talk, who: Principal) -> list[NotificationOut]:
    async with talk.container.notifications.open_inbox() as opened:
        return (await opened.page(who, NotificationList())).items


async def level(talk: Talk, who: Principal, room_id: UUID, **private: Any) -> None:
    command = UpdateMember(room_id=room_id, user_id=who.external_id, **private)
    async with talk.container.open_members() as members:
        await members.update(who, command)


async def traced(talk: Talk, message_id: UUID) -> list[dict[str, Any]]:
    """What the application is told of a message's notifications."""

    async def nothing(*_: object) -> Any:
        return {}

    [row] = await talk.rows("select id, slug from client")
    master = Principal(caller=Caller.MASTER, client_id=row["id"], client_slug=row["slug"])
    command = MessageRef(message_id=message_id)
    found = await talk.container.traces.of(master, command, nothing, nothing)
    shown: list[dict[str, Any]] = found.model_dump(mode="json")["notifications"]
    return shown


async def notices(talk: Talk) -> list[dict[str, Any]]:
    return await talk.rows("select * from message_notice")


@pytest.fixture
async def people(talk: Talk, master: Principal) -> list[Principal]:
    return await talk.users(master, "ann", "bob", "eve")


class TestWho:
    async def test_the_other_of_a_direct_room(self, talk: Talk, people: list[Principal]) -> None:
        ann, bob, _ = people
        room = await talk.room(ann, bob, kind="direct")
        await talk.send(ann, room.id, "one")
        newest = await talk.send(ann, room.id, "two")
        assert len(await notices(talk)) == 1
        assert await look(talk) == 1
        [told] = await inbox(talk, bob)
        assert (told.category, told.title, told.body) == ("message", "ann", "two")
        assert told.data == {
            "count": 2,
            "why": "direct",
            "room_id": str(room.id),
            "message_id": str(newest.message.id),
            "seq": newest.message.seq,
            "sender_id": "ann",
        }
        assert await inbox(talk, ann) == []
        assert await notices(talk) == []

    async def test_who_is_named_and_nobody_else(self, talk: Talk, people: list[Principal]) -> None:
        ann, bob, eve = people
        room = await talk.room(ann, bob, eve, title="Plans")
        await talk.send(ann, room.id, "nobody in particular")
        assert await notices(talk) == []
        await talk.send(ann, room.id, "you", mentions=["bob"])
        await talk.send(ann, room.id, "both", mentions=["!role:member"], silent=True)
        await look(talk)
        [told] = await inbox(talk, bob)
        assert (told.title, told.body, told.data["why"]) == ("Plans", "ann: you", "mention")
        assert told.data["count"] == 1
        assert await inbox(talk, eve) == []

    async def test_a_name_for_all_in_a_small_room(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, eve = people
        room = await talk.room(ann, bob, eve)
        await talk.send(ann, room.id, "all", mentions=["!everyone"])
        await look(talk)
        assert [len(await inbox(talk, each)) for each in people] == [0, 1, 1]

    async def test_in_a_large_room_only_who_is_named(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, eve = people
        room = await talk.room(ann, bob, eve)
        await level(talk, eve, room.id, notification_level="all")
        await talk.run("update room set members_count = 201 where id = $1", room.id)
        await talk.send(ann, room.id, "all", mentions=["!everyone", "bob"])
        await look(talk)
        assert [len(await inbox(talk, each)) for each in people] == [0, 1, 0]

    async def test_level_all_hears_everything_and_none_and_mute_nothing(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, eve = people
        room = await talk.room(ann, bob, eve)
        await level(talk, bob, room.id, notification_level="all")
        await level(talk, eve, room.id, is_muted=True)
        await talk.send(ann, room.id, "hello", mentions=["eve"])
        await look(talk)
        assert [len(await inbox(talk, each)) for each in people] == [0, 1, 0]
        await level(talk, bob, room.id, notification_level="none")
        await talk.send(ann, room.id, "bob!", mentions=["bob"])
        await look(talk)
        assert [it.data["count"] for it in await inbox(talk, bob)] == [1]

    async def test_who_does_not_want_it_and_whose_client_does_not(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, eve = people
        async with talk.container.notifications.open_consent() as consent:
            await consent.prefer(
                bob,
                PreferencesPatch.model_validate({"preferences": {"message": {"socket": False}}}),
            )
        room = await talk.room(ann, bob, eve)
        await talk.send(ann, room.id, "hello", mentions=["bob", "eve"])
        await look(talk)
        assert [len(await inbox(talk, each)) for each in people] == [0, 0, 1]
        await talk.run(
            """update client set settings = '{"message_notifications": {"enabled": false}}'"""
        )
        await talk.send(ann, room.id, "hello", mentions=["eve"])
        await look(talk)
        assert [it.data["count"] for it in await inbox(talk, eve)] == [1]

    async def test_who_is_there_is_looked_for_once_more(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, _ = people
        room = await talk.room(ann, bob, kind="direct")
        await talk.send(ann, room.id)
        await look(talk, Nobody(bob))
        assert await inbox(talk, bob) == []
        [waits] = await notices(talk)
        assert waits["is_second"]
        await look(talk)
        assert len(await inbox(talk, bob)) == 1
        assert await notices(talk) == []

    async def test_who_reads_in_time_hears_nothing(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, _ = people
        room = await talk.room(ann, bob, kind="direct")
        await talk.send(ann, room.id)
        await talk.container.reads.mark(bob, MarkRead(room_id=room.id))
        await look(talk)
        assert await talk.rows("select 1 from in_app_notification") == []


class TestOnce:
    async def test_a_room_has_one_that_is_unread(self, talk: Talk, people: list[Principal]) -> None:
        ann, bob, _ = people
        room = await talk.room(ann, bob, kind="direct")
        await talk.send(ann, room.id, "one", mentions=["bob"])
        await look(talk)
        [before] = await inbox(talk, bob)
        talk.shown.facts.clear()
        await talk.send(ann, room.id, "two")
        await look(talk)
        [after] = await inbox(talk, bob)
        assert (after.body, after.data["count"], after.data["why"]) == ("two", 2, "mention")
        told = [
            orjson.loads(it.body)["data"]
            for it in talk.shown.facts
            if it.type in ("notification.created", "notification.unread")
        ]
        assert told[0]["replaces"] == str(before.id)
        assert told[0]["notification"]["body"] == "two"
        assert told[1] == {"unread": 1}

    async def test_two_workers_at_once_tell_once(self, talk: Talk, people: list[Principal]) -> None:
        ann, bob, _ = people
        room = await talk.room(ann, bob, kind="direct")
        await talk.send(ann, room.id)
        await talk.run("update message_notice set due_at = clock_timestamp()")
        absences = talk.container.absences
        taken = await absences.lookup.take(limit=10)
        assert await absences.lookup.take(limit=10) == []
        found = await absences.lookup.concerned([it.id for it in taken])
        for told in (1, 0):
            async with absences.open_absences() as opened:
                assert await opened.tell(taken, found, set()) == told
        assert len(await inbox(talk, bob)) == 1

    async def test_what_a_dead_worker_held_comes_back(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, _ = people
        room = await talk.room(ann, bob, kind="direct")
        await talk.send(ann, room.id, "one")
        await talk.run("update message_notice set due_at = clock_timestamp()")
        assert len(await talk.container.absences.lookup.take(limit=10)) == 1
        # A message that comes meanwhile opens another.
        await talk.send(ann, room.id, "two")
        assert len(await notices(talk)) == 2
        await look(talk)
        [told] = await inbox(talk, bob)
        assert (told.body, told.data["count"]) == ("two", 2)
        assert await notices(talk) == []


class TestWhatItSays:
    async def test_nothing_that_was_deleted_or_may_not_be_read(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, eve = people
        room = await talk.room(ann, bob, eve)
        sent = await talk.send(ann, room.id, "secret", mentions=["bob", "eve"])
        await look(talk)
        await talk.remove(ann, room.id, eve)
        assert [it.body for it in await inbox(talk, eve)] == [None]
        async with talk.container.open_changes() as changes:
            await changes.delete(ann, MessageRef(message_id=sent.message.id))
        assert [it.body for it in await inbox(talk, bob)] == [None]
        kept = await talk.rows("select title, body, data from in_app_notification")
        assert "secret" not in f"{kept}"
        assert "ann" not in f"{kept}"

    async def test_reading_the_room_reads_it_too(self, talk: Talk, people: list[Principal]) -> None:
        ann, bob, _ = people
        room = await talk.room(ann, bob, kind="direct")
        await talk.send(ann, room.id)
        await look(talk)
        talk.shown.facts.clear()
        await talk.container.reads.mark(bob, MarkRead(room_id=room.id))
        await talk.shown.at_least(3)
        types = [it.type for it in talk.shown.facts if it.type.startswith("notification.")]
        assert types == ["notification.read", "notification.unread"]
        [told] = await inbox(talk, bob)
        assert told.read_at is not None


class TestEscalation:
    MAIL: ClassVar = {"after_s": 600, "subject": "{count} new in {room}", "text": "From {sender}"}

    async def prepared(self, talk: Talk, people: list[Principal]) -> UUID:
        wish = orjson.dumps({"message_notifications": {"enabled": True, "email": self.MAIL}})
        await talk.run("update client set settings = cast($1::text as jsonb)", wish.decode())
        await talk.run(
            """update app_user set details = '{"email": "bob@example.net"}'
            where external_id = 'bob'"""
        )
        ann, bob, eve = people
        return (await talk.room(ann, bob, eve, title="Plans")).id

    async def test_a_mail_follows_once_unless_it_is_read(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, _ = people
        room_id = await self.prepared(talk, people)
        await talk.run(
            "insert into provider (id, client_id, channel, kind, name, enabled, sealed)"
            " select gen_random_uuid(), id, 'email', 'smtp', 'x', true, '' from client"
        )
        await talk.run(
            "insert into delivery_target (id, client_id, channel, state, concurrency, is_proven,"
            " failures, opened, is_draining)"
            " select id, client_id, 'email', 'active', 4, true, 0, 0, false from provider"
        )
        said = []
        for text_ in ("one", "two"):
            said.append(await talk.send(ann, room_id, text_, mentions=["bob", "eve"]))
            await look(talk)
        [mail] = await talk.rows("select * from delivery")
        # The trace of either message shows what stands for both, and what waits for it.
        for each in said:
            shown = {
                (it["user_id"], it["channel"]): it for it in await traced(talk, each.message.id)
            }
            assert {place: it["state"] for place, it in shown.items()} == {
                ("bob", "socket"): "accepted",
                ("eve", "socket"): "accepted",
                ("bob", "email"): "scheduled",
            }
            stored, follows = shown["bob", "socket"], shown["bob", "email"]
            assert stored["notification_id"] == str((await inbox(talk, bob))[0].id)
            assert (stored["upto_seq"], stored["delivery_id"]) == (said[-1].message.seq, None)
            assert follows["delivery_id"] == str(mail["id"])
            assert "upto_seq" not in follows
        later = await talk.send(ann, room_id, "nobody in particular")
        assert await traced(talk, later.message.id) == []
        assert (mail["channel"], mail["state"]) == ("email", "scheduled")
        assert 590 < (mail["next_at"] - mail["created_at"]).total_seconds() < 601
        found = await talk.container.sending.lookup.sendable([mail["id"]])
        assert not found[mail["id"]]["is_met"]
        # Not the notification, but the room itself.
        await talk.run("update member set read_seq = 1000 where user_id = $1", bob.user_id)
        found = await talk.container.sending.lookup.sendable([mail["id"]])
        assert found[mail["id"]]["is_met"]

    async def test_texts_that_make_no_mail_cost_nobody_the_inbox(
        self, talk: Talk, people: list[Principal]
    ) -> None:
        ann, bob, _ = people
        room_id = await self.prepared(talk, people)
        await talk.run('update app_user set details = \'{"email": "no address"}\'')
        await talk.send(ann, room_id, mentions=["bob"])
        await look(talk)
        assert len(await inbox(talk, bob)) == 1
        assert await talk.rows("select * from delivery") == []


async def test_a_send_that_concerns_nobody_leaves_nothing(
    talk: Talk, people: list[Principal]
) -> None:
    ann, bob, eve = people
    room = await talk.room(ann, bob, eve)
    await talk.send(ann, room.id)
    await talk.send(ann, room.id, mentions=["bob"], silent=True)
    assert await notices(talk) == []


async def test_while_a_room_is_busy_its_notice_waits(talk: Talk, people: list[Principal]) -> None:
    ann, bob, _ = people
    room = await talk.room(ann, bob, kind="direct")
    await talk.send(ann, room.id)
    await talk.run("update message_notice set due_at = clock_timestamp()")
    async with talk.container.database.transaction() as session:
        await session.execute(text("select 1 from room for no key update"))
        assert await talk.container.absences.lookup.take(limit=10) == []
    assert len(await talk.container.absences.lookup.take(limit=10)) == 1


async def test_what_is_imported_tells_nobody(talk: Talk, people: list[Principal]) -> None:
    ann, bob, _ = people
    room = await talk.room(ann, bob, kind="direct")
    async with talk.container.database.transaction() as session:
        tables = ImportRepository(session, ann.client_id)
        at = (await session.execute(text("select clock_timestamp()"))).scalar_one()
        await tables.move(room.id, last_seq=9, msg_no=9, at=at, raised=True)
    assert await notices(talk) == []
    await talk.send(ann, room.id)
    assert len(await notices(talk)) == 1
