"""What is under a legal hold stays, whoever asks for its end and however old it is."""

from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy.exc import IntegrityError

from chatserver.clients.schemas import OwnClientUpdate
from chatserver.infra import outbox
from chatserver.infra.job_kinds import ERASE_USER, PURGE_ROOM
from chatserver.infra.jobs import Claim
from chatserver.kernel.principal import Principal
from chatserver.privacy.errors import LegalHoldActiveError, LegalHoldNotFoundError
from chatserver.privacy.schemas import HoldList, HoldOut, HoldPath, PersonPath, PlaceHold
from chatserver.reactions import purge_room
from chatserver.rooms.errors import RoomNotFoundError
from chatserver.rooms.schemas import MemberRef, RoomRef
from chatserver.users.errors import UserNotFoundError
from tests.support.people import House
from workers.privacy import PrivacyJobs
from workers.rooms import RoomJobs


@pytest.fixture
async def master(house: House) -> Principal:
    return await house.tenant()


@pytest.fixture
async def ann(house: House, master: Principal) -> Principal:
    await house.person(master, "bob")
    return await house.person(master, "ann", display_name="Ann")


async def place(house: House, master: Principal, **what: Any) -> HoldOut:
    async with house.container.open_holds() as holds:
        return await holds.place(master, PlaceHold(reason="case 7", **what))


async def release(house: House, master: Principal, hold: HoldOut) -> HoldOut:
    async with house.container.open_holds() as holds:
        return await holds.release(master, HoldPath(id=hold.id))


async def erase(house: House, master: Principal, name: str = "ann") -> UUID:
    async with house.container.open_privacy() as privacy:
        return (await privacy.erase(master, PersonPath(external_id=name))).id


async def state_of(house: House, master: Principal, name: str = "ann") -> str:
    async with house.container.open_privacy() as privacy:
        return (await privacy.report(master, PersonPath(external_id=name))).state


async def do_jobs(house: House, kind: str) -> int:
    """Do all jobs of a kind that wait, as a worker does."""
    container = house.container
    rooms = RoomJobs(open_rooms=container.open_rooms, is_held=container.privacy.is_room_held)
    privacy = PrivacyJobs(eraser=container.privacy.eraser, keeper=container.privacy.keeper)
    handle = {PURGE_ROOM.name: rooms.purge, ERASE_USER.name: privacy.erase}[kind]
    waiting = await house.rows(
        "delete from job where kind = :kind returning id, client_id, payload", kind=kind
    )
    for row in waiting:
        payload = row["payload"]
        await handle(
            Claim(
                id=row["id"],
                kind=kind,
                client_id=row["client_id"],
                payload=orjson.loads(payload) if isinstance(payload, str) else payload,
                attempt=1,
                fence=1,
                lease_s=30.0,
            )
        )
    return len(waiting)


async def contents(house: House, room_id: UUID) -> list[str]:
    rows = await house.rows(
        "select content from message where room_id = :room order by seq", room=room_id
    )
    return [row["content"] for row in rows]


class TestErasure:
    async def test_a_person_under_hold_is_not_erased_and_keeps_everything(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        hold = await place(house, master, user_id="ann")
        with pytest.raises(LegalHoldActiveError) as refused:
            await erase(house, master)
        assert refused.value.details == {"holds": [str(hold.id)]}
        [row] = await house.rows("select display_name, erasing_at from app_user where id = :id",
                                 id=ann.user_id)  # fmt: skip
        assert row == {"display_name": "Ann", "erasing_at": None}
        await release(house, master, hold)
        await erase(house, master)
        await do_jobs(house, ERASE_USER.name)
        assert await state_of(house, master) == "done"
        assert await house.rows("select 1 from legal_hold") == []

    @pytest.mark.parametrize("tie", ["member", "wrote and left", "left without a word"])
    async def test_nor_is_anybody_of_a_room_under_hold(
        self, house: House, master: Principal, ann: Principal, tie: str
    ) -> None:
        room = await house.room(ann, "bob")
        await house.say(ann, room.id, "evidence")
        if tie != "member":
            async with house.container.open_members() as members:
                await members.remove(master, MemberRef(room_id=room.id, user_id="ann"))
        if tie == "wrote and left":
            await house.change("delete from departure")
        if tie == "left without a word":
            await house.change("delete from message")
        hold = await place(house, master, room_id=room.id)
        with pytest.raises(LegalHoldActiveError):
            await erase(house, master)
        await release(house, master, hold)
        await erase(house, master)

    async def test_a_hold_elsewhere_stops_nobody(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        bobs = await house.room(await house.person(master, "bob"))
        await place(house, master, room_id=bobs.id)
        await place(house, master, user_id="bob")
        other = await house.tenant("Other")
        await house.person(other, "ann")
        await place(house, other, user_id="ann")
        await erase(house, master)
        await do_jobs(house, ERASE_USER.name)
        assert await state_of(house, master) == "done"

    async def test_one_under_way_stops_for_a_hold_and_goes_on_after_its_release(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        room = await house.room(ann, "bob")
        await house.say(ann, room.id, "evidence")
        await erase(house, master)
        hold = await place(house, master, room_id=room.id)
        await do_jobs(house, ERASE_USER.name)
        assert await state_of(house, master) == "held"
        assert await contents(house, room.id) == ["evidence"]
        await do_jobs(house, ERASE_USER.name)
        await release(house, master, hold)
        assert await do_jobs(house, ERASE_USER.name) == 1
        assert await state_of(house, master) == "done"
        assert await contents(house, room.id) == [""]


class TestRetention:
    @pytest.mark.parametrize("what", ["room", "member", "author"])
    async def test_nothing_of_it_ages_out_until_the_release(
        self, house: House, master: Principal, ann: Principal, what: str
    ) -> None:
        given = OwnClientUpdate.model_validate({"retention": {"group": 1}})
        async with house.container.open_clients() as clients:
            await clients.update_own(master, given)
        kept, other = await house.room(ann, "bob"), await house.room(
            await house.person(master, "carl")
        )  # fmt: skip
        await house.say(ann, kept.id, "evidence")
        await house.change("update room_event set created_at = created_at - interval '9 days'")
        if what == "author":
            async with house.container.open_members() as members:
                await members.remove(master, MemberRef(room_id=kept.id, user_id="ann"))
            await house.change("delete from departure")
        subject = {"room_id": kept.id} if what == "room" else {"user_id": "ann"}
        hold = await place(house, master, **subject)
        assert await house.container.privacy.keeper.apply() > 0
        assert await contents(house, kept.id) == ["evidence"]
        assert await house.rows("select 1 from room_event where room_id = :r", r=other.id) == []
        await release(house, master, hold)
        assert await house.container.privacy.keeper.apply() > 0
        assert await contents(house, kept.id) == []


class TestDeletedRooms:
    @pytest.mark.parametrize("what", ["room", "person"])
    async def test_a_deleted_room_is_gone_for_all_and_kept_until_the_release(
        self, house: House, master: Principal, ann: Principal, what: str
    ) -> None:
        room = await house.room(ann, "bob")
        await house.say(ann, room.id, "evidence")
        subject = {"room_id": room.id} if what == "room" else {"user_id": "ann"}
        first, second = [await place(house, master, **subject) for _ in range(2)]
        async with house.container.open_rooms() as rooms:
            await rooms.delete(master, RoomRef(room_id=room.id))
        with pytest.raises(RoomNotFoundError):
            await place(house, master, room_id=room.id)
        async with house.container.open(lambda work: work)() as work:
            for row in await outbox.take(work.session, limit=10):
                await purge_room(work, row)
        assert await do_jobs(house, PURGE_ROOM.name) == 1
        await release(house, master, first)
        assert await do_jobs(house, PURGE_ROOM.name) == 1
        assert await contents(house, room.id) == ["evidence"], "another hold is left"
        await release(house, master, second)
        assert await do_jobs(house, PURGE_ROOM.name) == 1
        assert await house.rows("select 1 from room where id = :r", r=room.id) == []


class TestHolds:
    async def test_they_are_listed_with_who_placed_and_released_them(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        room = await house.room(ann)
        first = await place(house, master, room_id=room.id)
        await place(house, master, user_id="ann")
        done = await release(house, master, first)
        assert done.released_at is not None
        async with house.container.open_holds() as holds:
            both = await holds.list(master, HoldList())
            active = await holds.list(master, HoldList(is_active=True))
            ended = await holds.list(master, HoldList(is_active=False))
        assert [(it.user_id, it.room_id) for it in both.items] == [("ann", None), (None, room.id)]
        assert (both.total, active.total, ended.total) == (2, 1, 1)
        assert ended.items[0].released_by == f"master:{master.key_id}"
        noted = await house.rows(
            "select action, subject from audit where action like 'legal_hold.%' order by id"
        )
        assert [tuple(row.values()) for row in noted] == [
            ("legal_hold.place", f"room:{room.id}"),
            ("legal_hold.place", "user:ann"),
            ("legal_hold.release", f"room:{room.id}"),
        ]

    async def test_nobody_holds_or_releases_what_is_anothers(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        room = await house.room(ann)
        hold = await place(house, master, room_id=room.id)
        other = await house.tenant("Other")
        for unknown in ({"room_id": room.id}, {"room_id": uuid4()}):
            with pytest.raises(RoomNotFoundError):
                await place(house, other, **unknown)
        with pytest.raises(UserNotFoundError):
            await place(house, other, user_id="ann")
        with pytest.raises(LegalHoldNotFoundError):
            await release(house, other, hold)
        async with house.container.open_holds() as holds:
            assert (await holds.list(other, HoldList())).items == []
        await release(house, master, hold)
        with pytest.raises(LegalHoldNotFoundError):
            await release(house, master, hold)

    async def test_who_is_being_erased_is_not_there_to_be_held(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        await erase(house, master)
        with pytest.raises(UserNotFoundError):
            await place(house, master, user_id="ann")

    @pytest.mark.parametrize("what", [{}, {"user_id": "ann", "room_id": str(uuid4())}])
    def test_it_is_a_person_or_a_room(self, what: dict[str, str]) -> None:
        with pytest.raises(ValueError, match="either user_id or room_id"):
            PlaceHold.model_validate({"reason": "x", **what})

    async def test_the_database_itself_refuses_a_hold_on_another_tenants(
        self, house: House, master: Principal, ann: Principal
    ) -> None:
        other = await house.tenant("Other")
        with pytest.raises(IntegrityError):
            await house.change(
                "insert into legal_hold (id, client_id, user_id, reason, placed_by)"
                " values (:id, :client, :user, 'x', 'x')",
                id=uuid4(),
                client=other.client_id,
                user=ann.user_id,
            )
