"""What is too old goes, and whoever asks for it is told that it is gone, not that it never was."""

from typing import Any
from uuid import UUID

import pytest

from chatserver.chat.errors import HistoryTruncatedError
from chatserver.chat.schemas import ListEvents, ListMessages, Replay
from chatserver.clients.schemas import OwnClientUpdate
from chatserver.kernel.principal import Principal
from tests.support.people import House


@pytest.fixture
async def master(house: House) -> Principal:
    return await house.tenant()


async def keep(house: House, master: Principal, **days: int | None) -> None:
    command = OwnClientUpdate.model_validate({"retention": days})
    async with house.container.open_clients() as clients:
        assert (await clients.update_own(master, command)).retention.items() >= days.items()


async def age(house: House, room_id: UUID, up_to: int, *, days: int) -> None:
    await house.change(
        "update room_event set created_at = created_at - make_interval(days => :days)"
        " where room_id = :room and seq <= :up_to",
        days=days,
        room=room_id,
        up_to=up_to,
    )


async def rows_of(house: House, room_id: UUID) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for table in ("room_event", "message"):
        rows = await house.rows(
            f"select seq from {table} where room_id = :room order by seq", room=room_id
        )
        found[table] = [row["seq"] for row in rows]
    return found


async def a_room(house: House, master: Principal, **more: Any) -> tuple[Principal, UUID]:
    ann = await house.person(master, "ann")
    room = await house.room(ann, **more)
    for text in ("one", "two", "three"):
        await house.say(ann, room.id, text)
    return ann, room.id


async def test_only_what_is_too_old_goes_and_the_epoch_stays(
    house: House, master: Principal
) -> None:
    ann, room_id = await a_room(house, master)
    await keep(house, master, group=30)
    await age(house, room_id, 3, days=31)
    [before] = await house.rows("select epoch, last_seq from room where id = :r", r=room_id)

    assert await house.container.privacy.keeper.apply() == 3

    assert await rows_of(house, room_id) == {"room_event": [4], "message": [4]}
    [after] = await house.rows("select epoch, last_seq, min_seq from room where id = :r", r=room_id)
    assert after == {**before, "min_seq": 4}
    catch_up = house.container.catch_up
    with pytest.raises(HistoryTruncatedError) as refused:
        await catch_up.replay(ann, Replay(room_id=room_id, after_seq=1))
    assert refused.value.details == {"min_seq": 4}
    replayed = await catch_up.replay(ann, Replay(room_id=room_id, after_seq=3))
    assert [event["seq"] for event in replayed.events] == [4]
    assert [e["seq"] for e in (await catch_up.events(ann, ListEvents(room_id=room_id))).events] == [
        4
    ]
    messages = await house.container.chat.list(ann, ListMessages(room_id=room_id))
    assert [message.content for message in messages.items] == ["three"]


async def test_a_room_may_end_up_empty_and_goes_on(house: House, master: Principal) -> None:
    ann, room_id = await a_room(house, master)
    await keep(house, master, group=1)
    await age(house, room_id, 4, days=2)
    assert await house.container.privacy.keeper.apply() == 4
    assert await house.container.privacy.keeper.apply() == 0
    sent = await house.say(ann, room_id, "new")
    assert sent.message.seq == 5
    replayed = await house.container.catch_up.replay(ann, Replay(room_id=room_id, after_seq=4))
    assert [event["seq"] for event in replayed.events] == [5]


async def test_other_types_and_other_clients_keep_everything(
    house: House, master: Principal
) -> None:
    _, support = await a_room(house, master, type="support")
    other = await house.tenant("Other")
    _, theirs = await a_room(house, other)
    _, unnamed = await a_room(house, master)
    await keep(house, master, support=None, direct=1)
    for room_id in (support, theirs, unnamed):
        await age(house, room_id, 4, days=1000)
    assert await house.container.privacy.keeper.apply() == 0
    for room_id in (support, theirs, unnamed):
        assert (await rows_of(house, room_id))["room_event"] == [1, 2, 3, 4]


async def test_more_than_one_slice_is_removed(
    house: House, master: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatserver.privacy.retention.ROWS", 2)
    _, room_id = await a_room(house, master)
    await keep(house, master, group=1)
    await age(house, room_id, 3, days=2)
    assert await house.container.privacy.keeper.apply() == 3
    assert (await rows_of(house, room_id))["room_event"] == [4]
