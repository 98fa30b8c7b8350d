"""Who takes part: a thousand users, each in twenty rooms, for the peers and for the product."""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

USERS: Final = 1000
BIG: Final = 100
SMALL: Final = 10
OTHER: Final = 50
OTHERS: Final = 18
_AT_ONCE: Final = 16


@dataclass(frozen=True)
class Room:
    id: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Cast:
    """`auth[i]` is what user i connects with, in every namespace."""

    big: tuple[Room, ...]
    small: tuple[Room, ...]
    auth: tuple[dict[str, Any], ...]


def _groups() -> tuple[list[range], list[range], list[tuple[int, ...]]]:
    """Big rooms, small rooms, and eighteen more of fifty for everyone, mixed differently."""
    big = [range(at, at + BIG) for at in range(0, USERS, BIG)]
    small = [range(at, at + SMALL) for at in range(0, USERS, SMALL)]
    others = []
    for turn in range(OTHERS):
        step = (7, 11, 13, 17, 19, 23)[turn % 6]
        order = [(at * step + turn * 37) % USERS for at in range(USERS)]
        others += [tuple(order[at : at + OTHER]) for at in range(0, USERS, OTHER)]
    return big, small, others


def of_peers() -> Cast:
    """Rooms with made-up ids, that are joined at the connect because its `auth` says so."""
    big, small, others = _groups()
    rooms = [
        Room(str(uuid.uuid5(uuid.NAMESPACE_OID, f"{number}")), tuple(members))
        for number, members in enumerate([*big, *small, *others])
    ]
    of_user: list[list[str]] = [[] for _ in range(USERS)]
    for room in rooms:
        for member in room.members:
            of_user[member].append(room.id)
    auth = tuple({"rooms": mine} for mine in of_user)
    return Cast(tuple(rooms[: len(big)]), tuple(rooms[len(big) :][: len(small)]), auth)


async def of_product(url: str, operator_key: str) -> Cast:
    """Users with keys and rooms with members, made over REST."""
    async with aiohttp.ClientSession(url) as http:
        made = await _post(http, operator_key, "/clients", {"name": f"bench-{uuid.uuid4()}"})
        key = made["master_key"]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def login(user: int) -> dict[str, Any]:
            async with gate:
                issued = await _post(http, key, f"/users/u{user}/login", {})
                return {"token": issued["key"]}

        async def room(members: tuple[int, ...]) -> Room:
            async with gate:
                body = {"type": "group", "member_ids": [f"u{member}" for member in members]}
                created = await _post(http, key, "/rooms", body)
                return Room(created["id"], members)

        auth = await asyncio.gather(*(login(user) for user in range(USERS)))
        big, small, others = _groups()
        rooms = await asyncio.gather(*(room(tuple(group)) for group in [*big, *small, *others]))
        return Cast(tuple(rooms[: len(big)]), tuple(rooms[len(big) :][: len(small)]), tuple(auth))


async def _post(http: aiohttp.ClientSession, key: str, path: str, body: Any) -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    async with http.post(f"/api/v1{path}", json=body, headers=headers) as answer:
        said = orjson.loads(await answer.read())
        if answer.status >= 400:
            raise RuntimeError(f"{path}: {answer.status} {said}")
        return said
