"""What was sent to a person, or told of a person's messages, says nothing after the erasure."""

from collections.abc import Sequence
from uuid import UUID

import orjson
from sqlalchemy import text

from chatserver.notifications.inbox.schemas import NotificationList
from chatserver.notifications.requests.schemas import SendNotification
from chatserver.privacy.schemas import PersonPath
from tests.support.everything import rows_with
from tests.support.people import House
from workers.absences import AbsenceLane

CANARY = "c4n4ryOfAnn"


async def test_nothing_of_a_person_is_left_in_what_was_sent(house: House) -> None:
    master = await house.tenant()
    ann = await house.person(master, "ann", display_name=f"Ann {CANARY}")
    bob = await house.person(master, "bob")
    container = house.container
    command = SendNotification.model_validate(
        {
            "recipients": [{"user_id": "ann", "email": f"{CANARY}@example.net"}],
            "channels": {"socket": {"title": CANARY}, "email": {"subject": "x", "text": "y"}},
        }
    )
    async with container.sending.open_notifications() as notifications:
        await notifications.send(master, command)
    room = await house.room(ann, "bob")
    await house.say(ann, room.id, f"secret {CANARY}", mentions=["bob"])
    async with container.database.transaction() as session:
        await session.execute(text("update message_notice set due_at = clock_timestamp()"))
    absences = container.absences

    async def nobody(users: Sequence[UUID]) -> set[UUID]:
        return set(users[:0])

    await AbsenceLane(
        notices=absences.lookup, open_absences=absences.open_absences, present=nobody
    ).look()
    async with container.notifications.open_inbox() as inbox:
        [told] = (await inbox.page(bob, NotificationList())).items
    assert CANARY in f"{told.title}{told.body}"

    async with container.open_privacy() as privacy:
        asked = await privacy.erase(master, PersonPath(external_id="ann"))
    await container.privacy.eraser.erase(asked.id)

    assert await rows_with(house.address.admin_url, CANARY) == {}
    async with container.database.transaction() as session:
        rows = await session.execute(
            text("select person, address, address_hash from notification_delivery")
        )
        assert set(rows.all()) == {(None, None, None)}
    async with container.notifications.open_inbox() as inbox:
        [told] = (await inbox.page(bob, NotificationList())).items
    assert CANARY not in told.model_dump_json()
    assert "ann" not in orjson.dumps(told.data).decode()
