"""A mention, a notice inside, and what follows while nobody reads it: a push, then a mail."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
import pytest

from chatserver.chat.schemas import MarkRead, MessageRef
from chatserver.kernel.principal import Principal
from chatserver.notifications.consent.schemas import PreferencesPatch
from chatserver.notifications.devices.schemas import DevicePut
from chatserver.notifications.inbox.schemas import ReadAll
from tests.support.mail_server import MailServer, mail_server
from tests.support.nodes import eventually
from tests.support.notifying import near, smtp, working
from tests.support.push_service import Browser, push_service
from tests.support.talk import Talk
from tests.support.talking import master
from workers.absences import AbsenceLane

__all__ = ["master", "near"]

WISH: Final = {
    "message_notifications": {
        "enabled": True,
        "push": {"after_s": 60},
        "email": {"after_s": 600, "subject": "{count} new in {room}", "text": "From {sender}"},
    }
}
UNDER_WAY: Final = ("scheduled", "queued", "sending", "retry_wait")


@dataclass
class Room:
    """Bob has a phone and an address; Ann names him while he is away."""

    talk: Talk
    id: UUID
    ann: Principal
    bob: Principal
    phone: Browser
    mails: MailServer

    async def say(self, text: str) -> Any:
        sent = await self.talk.send(self.ann, self.id, text, mentions=["bob"])
        await self.talk.run("update message_notice set due_at = clock_timestamp()")
        absences = self.talk.container.absences

        async def nobody(users: Sequence[UUID]) -> set[UUID]:
            return set()

        await AbsenceLane(
            notices=absences.lookup, open_absences=absences.open_absences, present=nobody
        ).look()
        return sent

    async def become_of(self, channel: str) -> tuple[str, str | None]:
        """Let the time of what follows on a channel come; how it ends."""
        await self.talk.run(
            "update delivery set next_at = clock_timestamp() where channel = $1", channel
        )

        async def ended() -> tuple[str, str | None] | None:
            [row] = await self.talk.rows(
                "select state, reason from delivery where channel = $1", channel
            )
            return None if row["state"] in UNDER_WAY else (row["state"], row["reason"])

        found: tuple[str, str | None] = await eventually(ended, why=f"{channel} ends")
        return found


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


@pytest.fixture
async def room(near: Talk, master: Principal) -> AsyncIterator[Room]:
    ann, bob = await near.users(master, "ann", "bob")
    await near.run(
        "update client set settings = cast($1::text as jsonb)", orjson.dumps(WISH).decode()
    )
    await near.run(
        """update app_user set details = '{"email": "bob@example.net"}' where external_id = 'bob'"""
    )
    async with mail_server() as mails, push_service() as service:
        await smtp(near, master, mails)
        service.public_key = await near.container.notifications.push_keys.public_key()
        phone = service.browser("bob")
        await register(near, bob, phone)
        made = await near.room(ann, bob, title="Plans")
        async with working(near):
            yield Room(near, made.id, ann, bob, phone, mails)


async def register(talk: Talk, who: Principal, browser: Browser) -> None:
    command = DevicePut.model_validate({"kind": "web_push", "subscription": browser.subscription})
    async with talk.container.notifications.open_devices() as devices:
        await devices.put(who, command)


NEEDLESS: Final = ("cancelled", "fallback_not_needed")


async def test_who_reads_nothing_is_told_inside_then_pushed_to_then_written_to(
    room: Room,
) -> None:
    sent = await room.say("see @bob")
    types = [fact.type for fact in room.talk.shown.facts]
    assert types.count("notification.created") == 1
    assert (room.phone.read(), room.mails.taken) == ([], [])
    assert await room.become_of("push") == ("accepted", None)
    [told] = room.phone.read()
    assert (told["title"], told["body"]) == ("Plans", "ann: see @bob")
    assert told["data"]["room_id"] == str(room.id)
    assert await room.become_of("email") == ("accepted", None)
    [mail] = room.mails.mails()
    assert (mail["Subject"], mail["To"]) == ("1 new in Plans", "bob@example.net")
    assert mail.get_content().strip() == "From ann"
    # And the message's trace knows of both.
    rows = await room.talk.rows("select distinct details ->> 'message_id' as id from notification")
    assert [row["id"] for row in rows] == [str(sent.message.id)]


async def test_who_reads_the_room_after_the_push_gets_no_mail(room: Room) -> None:
    await room.say("one")
    assert await room.become_of("push") == ("accepted", None)
    await room.talk.container.reads.mark(room.bob, MarkRead(room_id=room.id))
    assert await room.become_of("email") == NEEDLESS
    assert room.mails.taken == []


async def test_who_reads_the_notice_is_left_alone_on_every_channel(room: Room) -> None:
    await room.say("one")
    async with room.talk.container.notifications.open_inbox() as inbox:
        await inbox.read_all(room.bob, ReadAll())
    assert await room.become_of("push") == NEEDLESS
    assert await room.become_of("email") == NEEDLESS
    assert (room.phone.read(), room.mails.taken) == ([], [])


async def test_what_is_said_meanwhile_is_not_pushed_twice_and_must_be_read_too(room: Room) -> None:
    first = await room.say("one")
    await room.say("two")
    # Read as far as the first, and not the second.
    await room.talk.run(
        "update member set read_seq = $1 where user_id = $2", first.message.seq, room.bob.user_id
    )
    assert await room.become_of("push") == ("accepted", None)
    assert len(room.phone.read()) == 1
    await room.talk.container.reads.mark(room.bob, MarkRead(room_id=room.id))
    assert await room.become_of("email") == NEEDLESS


async def test_without_a_device_the_mail_still_follows(room: Room) -> None:
    await room.talk.run("delete from push_device")
    await room.say("one")
    assert await room.become_of("push") == ("suppressed", "no_address")
    assert await room.become_of("email") == ("accepted", None)


async def test_a_device_that_is_gone_by_then(room: Room) -> None:
    await room.say("one")
    room.phone.service.answers[room.phone.name] = 410
    assert (await room.become_of("push"))[0] == "bounced"
    assert await room.become_of("email") == ("accepted", None)


async def test_a_channel_that_is_not_wanted_any_more(room: Room) -> None:
    await room.say("one")
    command = PreferencesPatch.model_validate({"preferences": {"message": {"push": False}}})
    async with room.talk.container.notifications.open_consent() as consent:
        await consent.prefer(room.bob, command)
    assert await room.become_of("push") == ("suppressed", "preference")
    assert await room.become_of("email") == ("accepted", None)


async def test_a_message_that_was_deleted_is_not_pushed(room: Room) -> None:
    sent = await room.say("a secret")
    async with room.talk.container.open_changes() as changes:
        await changes.delete(room.ann, MessageRef(message_id=sent.message.id))
    assert await room.become_of("push") == NEEDLESS
    assert await room.become_of("email") == NEEDLESS
    assert room.phone.read() == []


async def test_who_was_removed_hears_nothing_more(room: Room) -> None:
    await room.say("a secret")
    await room.talk.remove(room.ann, room.id, room.bob)
    assert await room.become_of("push") == NEEDLESS
    assert await room.become_of("email") == NEEDLESS
    assert (room.phone.read(), room.mails.taken) == ([], [])
