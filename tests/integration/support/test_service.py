from typing import Any

import pytest

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import RoleMissingError
from chatserver.rooms.schemas import RoomOut, RoomRef
from chatserver.support.schemas import Assign, ListQueue, QueueItem
from tests.support.talk import Talk


async def queue(talk: Talk, who: Principal, **members: Any) -> list[QueueItem]:
    async with talk.container.open_support() as support:
        page = await support.list(who, ListQueue.model_validate(members))
    assert page.total == len(page.items)
    return page.items


async def assign(talk: Talk, who: Principal, room: RoomOut, user_id: str | None) -> RoomOut:
    async with talk.container.open_support() as support:
        return await support.assign(who, Assign(room_id=room.id, user_id=user_id))


async def close(talk: Talk, who: Principal, room: RoomOut) -> RoomOut:
    async with talk.container.open_support() as support:
        return await support.close(who, RoomRef(room_id=room.id))


async def test_who_has_to_act_follows_from_the_last_message(talk: Talk, master: Principal) -> None:
    customer, agent = await talk.users(master, "customer", "agent")
    room = await talk.room(customer, kind="support")
    [item] = await queue(talk, master)
    assert (item.status, item.requester_id, item.assignee_id) == ("open", "customer", None)
    await assign(talk, master, room, "agent")
    await talk.send(customer, room.id, "help")
    await talk.send(agent, room.id, "how?")
    [item] = await queue(talk, agent)
    assert (item.status, item.assignee_id, item.last_sender_id) == ("waiting", "agent", "agent")
    await talk.send(customer, room.id, "like this")
    await talk.send(master, room.id, "a note of the system does not count")
    [item] = await queue(talk, agent, status="open")
    assert item.last_sender_id == "customer"
    assert await queue(talk, agent, status="waiting") == []
    closed = await close(talk, agent, room)
    assert closed.support is not None
    assert closed.support.closed_at is not None
    assert await queue(talk, agent) == []
    [item] = await queue(talk, agent, status="closed")
    assert item.since == closed.support.closed_at
    await talk.send(customer, room.id, "one more thing")
    [item] = await queue(talk, agent)
    assert item.status == "open"
    assert await queue(talk, agent, status="closed") == []


async def test_every_change_is_a_fact_that_shows_the_room(talk: Talk, master: Principal) -> None:
    customer, agent = await talk.users(master, "customer", "agent")
    room = await talk.room(customer, kind="support")
    given = await assign(talk, master, room, "agent")
    assert given.last_seq == 3
    [joined, updated] = talk.shown.of(room.id)[-2:]
    assert (joined["type"], joined["data"]["user_id"], joined["data"]["role"]) == (
        "member.joined",
        "agent",
        "moderator",
    )
    assert updated["type"] == "room.updated"
    assert updated["data"]["room"]["support"] == {"assignee_id": "agent", "closed_at": None}
    again = await assign(talk, master, room, "agent")
    assert again.last_seq == 3
    await close(talk, agent, room)
    async with talk.container.open_support() as support:
        opened = await support.reopen(agent, RoomRef(room_id=room.id))
    assert opened.support is not None
    assert opened.support.closed_at is None
    back = await assign(talk, agent, room, None)
    assert back.support is not None
    assert back.support.assignee_id is None
    entries = await talk.container.messages.entries(room.id, after_seq=0, limit=20, generation=1)
    assert entries[-1].type == "room.updated"


async def test_agents_see_what_they_moderate_and_customers_no_queue(
    talk: Talk, master: Principal
) -> None:
    customer, agent, other = await talk.users(master, "customer", "agent", "other")
    mine = await talk.room(customer, kind="support")
    await talk.room(customer, kind="support")
    await talk.room(customer, agent, kind="group")
    await assign(talk, master, mine, "agent")
    assert [item.room.id for item in await queue(talk, agent)] == [mine.id]
    assert await queue(talk, customer) == []
    assert await queue(talk, other) == []
    assert len(await queue(talk, master)) == 2
    assert [item.room.id for item in await queue(talk, master, assignee_id="agent")] == [mine.id]
    assert len(await queue(talk, master, unassigned=True)) == 1


async def test_rooms_that_the_application_made_have_their_first_member_as_requester(
    talk: Talk, master: Principal
) -> None:
    customer = await talk.user(master, "customer")
    room = await talk.room(master, customer, kind="support")
    await talk.send(customer, room.id)
    [item] = await queue(talk, master)
    assert (item.requester_id, item.status) == ("customer", "open")


async def test_another_clients_queue_is_empty(talk: Talk, master: Principal) -> None:
    customer = await talk.user(master, "customer")
    await talk.room(customer, kind="support")
    assert await queue(talk, await talk.client("other")) == []


async def test_refusals_change_nothing(talk: Talk, master: Principal) -> None:
    customer, bystander = await talk.users(master, "customer", "bystander")
    group = await talk.room(customer, bystander)
    with pytest.raises(PayloadInvalidError):
        await assign(talk, master, group, "bystander")
    with pytest.raises(RoleMissingError):
        await close(talk, bystander, group)
    assert len(await talk.log(group.id)) == 1
