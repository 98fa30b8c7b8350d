from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from chatserver.infra.job_kinds import DEACTIVATE_ROOMS, PURGE_ROOM, RECHECK_ROOMS, JobKind
from chatserver.infra.jobs import Claim
from workers.rooms import RoomJobs

CLIENT = UUID(int=7)
ROOM = UUID(int=8)


class FakeRooms:
    def __init__(self, *, slices: int) -> None:
        self.left = slices
        self.opened = 0
        self.purged: list[tuple[UUID, UUID]] = []
        self.rechecked: list[UUID] = []
        self.held: set[UUID] = set()

    def jobs(self) -> RoomJobs:
        return RoomJobs(open_rooms=self.open, is_held=self.is_held)

    async def is_held(self, _: UUID, room_id: UUID) -> bool:
        return room_id in self.held

    @asynccontextmanager
    async def open(self) -> AsyncIterator["FakeRooms"]:
        self.opened += 1
        yield self

    async def deactivate_due(self, *, limit: int) -> int:
        self.left -= 1
        return limit if self.left >= 0 else 0

    async def recheck(self, client_id: UUID, *, limit: int) -> int:
        self.rechecked.append(client_id)
        self.left -= 1
        return limit if self.left >= 0 else 0

    async def purge(self, client_id: UUID, room_id: UUID, *, limit: int) -> bool:
        self.purged.append((client_id, room_id))
        self.left -= 1
        return self.left > 0


def claimed(kind: JobKind, client_id: UUID | None = CLIENT) -> Claim:
    return Claim(
        id=UUID(int=1),
        kind=kind.name,
        client_id=client_id,
        payload={"room_id": str(ROOM)},
        attempt=1,
        fence=1,
        lease_s=30.0,
    )


async def test_due_rooms_are_deactivated_in_slices_until_none_is_left() -> None:
    rooms = FakeRooms(slices=3)
    await rooms.jobs().deactivate(claimed(DEACTIVATE_ROOMS))
    assert rooms.opened == 4


async def test_a_clients_rooms_are_looked_at_again_in_slices() -> None:
    rooms = FakeRooms(slices=2)
    await rooms.jobs().recheck(claimed(RECHECK_ROOMS))
    assert rooms.rechecked == [CLIENT] * 3
    assert rooms.opened == 3


async def test_a_room_is_purged_in_slices_each_in_a_transaction_of_its_own() -> None:
    rooms = FakeRooms(slices=3)
    await rooms.jobs().purge(claimed(PURGE_ROOM))
    assert rooms.purged == [(CLIENT, ROOM)] * 3
    assert rooms.opened == 3


async def test_a_room_under_hold_keeps_its_rows() -> None:
    rooms = FakeRooms(slices=3)
    rooms.held.add(ROOM)
    await rooms.jobs().purge(claimed(PURGE_ROOM))
    assert rooms.purged == []


async def test_a_purge_without_a_client_touches_nothing() -> None:
    rooms = FakeRooms(slices=1)
    with pytest.raises(ValueError, match="for a client"):
        await rooms.jobs().purge(claimed(PURGE_ROOM, client_id=None))
    assert rooms.opened == 0
