"""Webhook endpoints as callers send and see them."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from chatserver.deliveries.events import DELIVERY_FAILED
from chatserver.deliveries.schemas import State
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, Timestamp, left_out
from chatserver.providers.events import SUMMARIES as PROVIDER_FACTS
from chatserver.rooms.schemas import RoomType

LONGEST_OVERLAP_S: Final = 7 * 86_400
EVERYTHING: Final = "*"
ENDPOINT_FACTS: Final = (
    "endpoint.degraded",
    "endpoint.paused",
    "endpoint.resumed",
    "endpoint.disabling",
    "endpoint.disabled",
)
# What endpoints can follow: facts that last. Typing, presence, deltas and read pointers are of the
# moment, and go over sockets only.
FACT_TYPES: Final = frozenset(
    {
        "message.created",
        "message.updated",
        "message.deleted",
        "messages.erased",
        "reaction.changed",
        "pin.changed",
        "room.created",
        "room.updated",
        "room.deactivating",
        "room.deactivated",
        "room.reactivated",
        "room.deleted",
        "member.joined",
        "member.left",
        "member.updated",
        *ENDPOINT_FACTS,
        *PROVIDER_FACTS,
        DELIVERY_FAILED,
    }
)


def is_known(pattern: str) -> bool:
    """Tell whether a pattern can match anything: a fact's type, `noun.*`, or `*`."""
    if pattern == EVERYTHING or pattern in FACT_TYPES:
        return True
    noun, dot, rest = pattern.partition(".")
    return dot == "." and rest == "*" and any(each.startswith(f"{noun}.") for each in FACT_TYPES)


def _known(patterns: list[str]) -> list[str]:
    for pattern in patterns:
        if not is_known(pattern):
            msg = "must name facts that can be followed, like message.created, message.* or *"
            raise ValueError(msg)
    return list(dict.fromkeys(patterns))


Events: TypeAlias = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=64)]],
    Field(min_length=1, max_length=64),
    AfterValidator(_known),
]
Url: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Description: TypeAlias = Annotated[str, StringConstraints(max_length=1024)]
Ids: TypeAlias = Annotated[list[Id], Field(min_length=1, max_length=1000)]
RoomTypes: TypeAlias = Annotated[list[RoomType], Field(min_length=1, max_length=5)]
Rate: TypeAlias = Annotated[float, Field(gt=0, le=10_000)]
Concurrency: TypeAlias = Annotated[int, Field(ge=1, le=32)]
Seq: TypeAlias = Annotated[int, Field(ge=0, le=2**53 - 1)]


class CreateEndpoint(Request):
    """Where to send which facts. Every filter that is given must fit."""

    url: Url
    events: Events = Field(description="Types of facts, `message.*` for a group, `*` for all.")
    room_ids: Ids | None = None
    room_types: RoomTypes | None = None
    bot_ids: Ids | None = Field(default=None, description="Only what these bots did.")
    description: Description | None = None
    rate_per_s: Rate | None = Field(default=None, description="At most so many a second.")
    concurrency: Concurrency | None = Field(
        default=None, description="At most so many at once, for each worker process."
    )


class EndpointRef(Request):
    id: Id


class UpdateEndpoint(Request):
    """Members that are left out stay as they are; null takes a filter away."""

    id: Id
    url: Url | None = None
    events: Events | None = None
    room_ids: Ids | None = None
    room_types: RoomTypes | None = None
    bot_ids: Ids | None = None
    description: Description | None = None
    rate_per_s: Rate | None = None
    concurrency: Concurrency | None = None
    enabled: Literal[True] | None = Field(
        default=None, description="Begin anew after a pause, or after it was disabled."
    )

    @model_validator(mode="after")
    def _something(self) -> "UpdateEndpoint":
        given = self.model_fields_set - {"id"}
        if not given:
            msg = "name at least one thing to change"
            raise ValueError(msg)
        for name in ("url", "events", "concurrency", "enabled"):
            if name in given and getattr(self, name) is None:
                msg = f"{name} can't be null"
                raise ValueError(msg)
        return self


class ListEndpoints(PageRequest):
    pass


class RotateSecret(Request):
    id: Id
    overlap_s: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP_S)] = Field(
        default=86_400, description="For so long the older secrets sign, too."
    )


class ReplayEvents(Request):
    """One event, or all since a time or number; `missing`: only what has not arrived."""

    id: Id
    event_id: Id | None = None
    since: Annotated[AwareDatetime, Field(strict=False)] | None = None
    after_seq: Seq | None = None
    missing: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> "ReplayEvents":
        several = self.since is not None or self.after_seq is not None or self.missing
        if (self.event_id is not None) == several:
            msg = "name either event_id, or since, after_seq or missing"
            raise ValueError(msg)
        if self.since is not None and self.after_seq is not None:
            msg = "name either since or after_seq"
            raise ValueError(msg)
        return self


class ListDeliveries(Request):
    id: Id
    state: State | None = None
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class ListEndpointEvents(Request):
    id: Id
    after_seq: Seq = 0
    limit: Annotated[int, Field(ge=1, le=300)] = 100


class EndpointHealth(Answer):
    """`paused`: it fails, so events gather and one at a time probes it until it answers again."""

    state: Literal["active", "degraded", "paused", "disabled"]
    reason: str | None
    since: Timestamp
    failures: int
    next_try_at: Timestamp | None
    draining: bool


class EndpointOut(Answer):
    id: Id
    url: str
    events: list[str]
    room_ids: list[Id] | None
    room_types: list[str] | None
    bot_ids: list[Id] | None
    description: str | None
    rate_per_s: float | None
    concurrency: int
    health: EndpointHealth
    created_at: Timestamp
    updated_at: Timestamp


class CreatedEndpoint(EndpointOut):
    """With the secret that requests are signed with: shown this once."""

    secret: str = Field(repr=False)


class RotatedSecret(Answer):
    """The new secret, shown this once. The older ones sign until `previous_expires_at`."""

    id: Id
    secret: str = Field(repr=False)
    previous_expires_at: Timestamp | None


class Replayed(Answer):
    """What is sent again, soon: events after `after_seq` up to `to_seq`, or one delivery."""

    endpoint_id: Id
    delivery_id: Id | None = left_out()
    after_seq: int | None = left_out()
    to_seq: int | None = left_out()


class Tested(Answer):
    """A test event is on its way; look at the delivery for what came of it."""

    delivery_id: Id
    event_id: Id
    event_seq: int


class EndpointEvents(Answer):
    """Facts as they are pushed, each with its `event_seq`, in that order.

    Go on after `last_seq`, also where `events` is empty; `complete`: there are no more for now.
    """

    events: list[dict[str, Any]]
    last_seq: int
    complete: bool


class EndpointData(Answer):
    """What `endpoint.*` facts carry."""

    endpoint_id: Id
    url: str
    state: str
    reason: str | None
