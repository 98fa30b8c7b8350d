"""Pure rules: which event an endpoint wants, and how long things are kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chatserver.webhooks.endpoints.schemas import EVERYTHING, FACT_TYPES

TEST: Final = "endpoint.test"
# Without a place in the log it is about somebody's own settings: nobody else's business.
PRIVATE_UNLESS_LOGGED: Final = frozenset({"member.updated"})
_BOTS: Final = frozenset({"bot", "ai"})

MOST_SECRETS: Final = 10
# How long events, and what became of them, are kept: 30 days after the last try there can be.
KEPT_DAYS: Final = 36
ATTEMPTS_KEPT_DAYS: Final = 30


def types_of(patterns: Iterable[str]) -> frozenset[str]:
    """Give the types of facts that patterns stand for."""
    found: set[str] = set()
    for pattern in patterns:
        if pattern == EVERYTHING:
            return FACT_TYPES
        if pattern.endswith(".*"):
            found |= {each for each in FACT_TYPES if each.startswith(pattern[:-1])}
        else:
            found.add(pattern)
    return frozenset(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an endpoint wants to be told of: everything that is given must fit."""

    endpoint_id: UUID
    client_id: UUID
    types: frozenset[str]
    room_ids: frozenset[UUID] | None = None
    room_types: frozenset[str] | None = None
    bot_ids: frozenset[str] | None = None
    # Whether deliveries are made for it; events that it wants are numbered in any case.
    is_served: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What a wish is held against."""

    type: str
    room_id: UUID | None = None
    room_type: str | None = None
    actor_type: str = "system"
    actor_id: str | None = None
    only_endpoint_id: UUID | None = None
    # Whom it is about: an endpoint is not told of its own troubles, it could not hear of them.
    about: str | None = None


def wants(wish: Wish, happened: Happened) -> bool:
    """Tell whether an endpoint is to be told of something."""
    if happened.only_endpoint_id is not None:
        return happened.only_endpoint_id == wish.endpoint_id
    if happened.type not in wish.types:
        return False
    if wish.room_ids is not None and happened.room_id not in wish.room_ids:
        return False
    if wish.room_types is not None and happened.room_type not in wish.room_types:
        return False
    if wish.bot_ids is not None and not (
        happened.actor_type in _BOTS and happened.actor_id in wish.bot_ids
    ):
        return False
    return happened.about != str(wish.endpoint_id)


def followed(wishes: Sequence[Wish]) -> list[str]:
    """Give the types that a client must write down for its endpoints."""
    return sorted(frozenset().union(*(wish.types for wish in wishes)))
