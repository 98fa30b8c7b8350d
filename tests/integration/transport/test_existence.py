"""A3, B13: what is refused costs the same whether it exists or not; work is counted, not time.

Times on a shared machine tell nothing that a test could rely on. What makes them differ is which
statements run and how much is hashed: those must be the same, one by one.
"""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from chatserver.api_keys.errors import AuthInvalidError
from chatserver.chat.schemas import ListEvents, ListMessages, PostMessage, Replay
from chatserver.infra import secrets
from chatserver.infra.secrets import KeyHasher, new_master_key, new_scoped_key, parse_key
from chatserver.infra.statements import Statements
from chatserver.kernel.errors import DomainError
from chatserver.kernel.principal import Principal
from chatserver.rooms.schemas import (
    ExternalRoomRef,
    InviteMembers,
    ListMembers,
    RoomRef,
    UpdateRoom,
)
from chatserver.users.schemas import UserPatch, UserPath
from tests.support.keys import KeyHouse
from tests.support.servers import Database

Ask = Callable[[Any], Awaitable[object]]


@pytest.fixture
async def house(database: Database) -> AsyncIterator[KeyHouse]:
    made = KeyHouse(database)
    yield made
    await made.close()


class Work:
    """The statements that ran, without their values, and what was hashed."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def note(self, what: str) -> None:
        self.done.append(what)


@pytest.fixture
def work(house: KeyHouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    made = Work()
    engine = house.database.engine.sync_engine

    def executed(_: Any, __: Any, statement: str, *___: Any) -> None:
        made.note(statement)

    run = Statements._run

    async def counted(self: Statements, how: str, statement: str, *rest: Any) -> Any:
        made.note(statement)
        return await run(self, how, statement, *rest)

    digest = KeyHasher._mac

    def hashed(self: KeyHasher, name: bytes, text: bytes) -> bytes:
        made.note("a MAC")
        return digest(self, name, text)

    class Hmac:
        digest = staticmethod(hmac.digest)

        @staticmethod
        def compare_digest(one: bytes, other: bytes) -> bool:
            made.note(f"a comparison of {len(one)} and {len(other)} bytes")
            return hmac.compare_digest(one, other)

    event.listen(engine, "before_cursor_execute", executed)
    monkeypatch.setattr(Statements, "_run", counted)
    monkeypatch.setattr(KeyHasher, "_mac", hashed)
    monkeypatch.setattr(secrets, "hmac", Hmac)
    yield made
    event.remove(engine, "before_cursor_execute", executed)


@contextmanager
def refused(code: str | None = None) -> Iterator[None]:
    with pytest.raises(DomainError) as error:
        yield
    if code is not None:
        assert error.value.code == code


async def works(work: Work, ask: Ask, given: dict[str, Any]) -> dict[str, list[str]]:
    """Ask about each thing, twice: caches are as warm for one as for the other."""
    found = {}
    for name, it in given.items():
        for _ in range(2):
            work.done = []
            with refused():
                await ask(it)
        found[name] = work.done
    return found


def alike(found: dict[str, list[str]], *, at_least: int) -> None:
    first, *others = found
    assert len(found[first]) >= at_least, "something was done"
    for other in others:
        assert found[other] == found[first], (first, other)


@pytest.mark.parametrize("door", ["rest", "socket", "connect"])
async def test_an_unknown_scoped_key_costs_what_a_wrong_secret_does(
    house: KeyHouse, work: Work, door: str
) -> None:
    master, _ = await house.new_client()
    keys = {
        name: (await house.login(master, name)).key for name in ("plain", "used", "old", "gone")
    }
    second = (await house.arrive(keys["used"])).handed_out
    assert second is not None
    await house.connect(second.key)  # there are a pending one and a retired one now
    await house.change(
        "update key_family set abs_expires_at = now() - interval '1 day' where user_id ="
        " (select id from app_user where external_id = 'old')"
    )
    await house.change(
        "update key_family set status = 'revoked' where user_id ="
        " (select id from app_user where external_id = 'gone')"
    )
    guesses = {"unknown": new_scoped_key().text}
    for name, key in keys.items():
        parsed = parse_key(key)
        assert parsed is not None
        guesses[f"wrong secret of {name}"] = new_scoped_key(kid=parsed.kid).text
        guesses[f"later generation of {name}"] = new_scoped_key(kid=parsed.kid, gen=2).text

    async def ask(key: str) -> object:
        with refused("auth.invalid"):
            if door == "connect":
                await house.arrive(key)
            else:
                await house.identifier.identify(key, door=door)  # type: ignore[arg-type]
        raise AuthInvalidError

    alike(await works(work, ask, guesses), at_least=5)


async def test_an_unknown_master_key_costs_what_a_wrong_secret_does(
    house: KeyHouse, work: Work
) -> None:
    _, key = await house.new_client()
    parsed = parse_key(key)
    assert parsed is not None
    wrong = new_master_key()
    guesses = {
        "unknown": new_master_key().text,
        "wrong secret": type(wrong)(parsed.kid, 0, wrong.secret).text,
    }

    async def ask(given: str) -> object:
        return await house.identifier.identify(given, door="rest")

    alike(await works(work, ask, guesses), at_least=3)


async def _room(house: KeyHouse, run: Callable[[Any], Awaitable[object]]) -> None:
    async with house.container.open_rooms() as rooms:
        await run(rooms)


async def _member(house: KeyHouse, run: Callable[[Any], Awaitable[object]]) -> None:
    async with house.container.open_members() as members:
        await run(members)


# Everything by which somebody may ask for a room: (house, who, id, name) to what is awaited.
ASKING: dict[str, Callable[[KeyHouse, Principal, UUID, str], Awaitable[object]]] = {
    "get": lambda house, eve, room, _: _room(house, lambda it: it.get(eve, RoomRef(room_id=room))),
    "name": lambda house, eve, _, name: _room(
        house, lambda it: it.get_external(eve, ExternalRoomRef(external_id=name))
    ),
    "update": lambda house, eve, room, _: _room(
        house, lambda it: it.update(eve, UpdateRoom(room_id=room, title="x"))
    ),
    "members": lambda house, eve, room, _: _member(
        house, lambda it: it.everyone(eve, ListMembers(room_id=room))
    ),
    "invite": lambda house, eve, room, _: _member(
        house, lambda it: it.invite(eve, InviteMembers(room_id=room, user_id="ann"))
    ),
    "join": lambda house, eve, room, _: _member(
        house, lambda it: it.join(eve, RoomRef(room_id=room))
    ),
    "leave": lambda house, eve, room, _: _member(
        house, lambda it: it.leave(eve, RoomRef(room_id=room))
    ),
    "history": lambda house, eve, room, _: house.container.chat.list(
        eve, ListMessages(room_id=room)
    ),
    "events": lambda house, eve, room, _: house.container.catch_up.events(
        eve, ListEvents(room_id=room)
    ),
    "replay": lambda house, eve, room, _: house.container.catch_up.replay(
        eve, Replay(room_id=room, after_seq=0)
    ),
    "post": lambda house, eve, room, _: house.container.chat.post(
        eve, PostMessage(room_id=room, content="x", client_msg_id="x")
    ),
}


class TestRooms:
    @pytest.fixture
    async def eve(self, house: KeyHouse) -> Principal:
        """Somebody of the client who is in no room."""
        master, _ = await house.new_client()
        return await house.person(master, "eve")

    @pytest.fixture
    async def rooms(self, house: KeyHouse, eve: Principal) -> dict[str, tuple[UUID, str]]:
        """By id and name: one that never was, somebody's private one, another tenant's, a gone."""
        master = Principal(caller=eve.caller.MASTER, client_id=eve.client_id)
        ann = await house.person(master, "ann")
        private = await house.room(ann, external_id="private")
        gone = await house.room(ann, external_id="gone")
        async with house.container.open_rooms() as open_rooms:
            await open_rooms.delete(master, RoomRef(room_id=gone.id))
        other, _ = await house.new_client("Other")
        foreign = await house.room(await house.person(other, "bob"), external_id="foreign")
        return {
            "unknown": (uuid4(), "unknown"),
            "private": (private.id, "private"),
            "gone": (gone.id, "gone"),
            "foreign": (foreign.id, "foreign"),
        }

    @pytest.mark.parametrize("what", ASKING)
    async def test_one_that_never_was_costs_what_a_private_one_does(
        self,
        house: KeyHouse,
        work: Work,
        eve: Principal,
        rooms: dict[str, tuple[UUID, str]],
        what: str,
    ) -> None:
        async def ask(room: tuple[UUID, str]) -> object:
            with refused("room.not_found"):
                await ASKING[what](house, eve, *room)
            raise AuthInvalidError

        alike(await works(work, ask, rooms), at_least=1)


async def test_people_are_looked_for_only_by_whoever_may_see_them(
    house: KeyHouse, work: Work
) -> None:
    master, _ = await house.new_client()
    eve = await house.person(master, "eve")
    await house.person(master, "ann", display_name="Ann")
    other, _ = await house.new_client("Other")
    await house.person(other, "bob")

    async def ask(name: str) -> object:
        async with house.open_users() as users:
            with refused("user.not_found"):
                await users.get(eve, UserPath(external_id=name))
            return await users.update(eve, UserPatch(external_id=name, display_name="x"))

    names = {name: name for name in ("nobody", "ann", "bob")}
    alike(await works(work, ask, names), at_least=0)

    async def ask_as_master(name: str) -> object:
        async with house.open_users() as users:
            return await users.get(master, UserPath(external_id=name))

    alike(await works(work, ask_as_master, {"nobody": "nobody", "bob": "bob"}), at_least=1)
