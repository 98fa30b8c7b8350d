"""Erasure, export and the audit log, as they go over the wire."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import (
    Answer,
    ExternalId,
    Id,
    Request,
    ShortText,
    Timestamp,
    left_out,
    shows,
)

# `held`: a legal hold was placed while it was under way; it goes on when that is released.
State: TypeAlias = Literal["queued", "running", "held", "done"]


class PersonPath(Request):
    external_id: ExternalId


class Signature(Answer):
    """Ed25519 over `report` as JSON with sorted members and without white space, in UTF-8."""

    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str = Field(description="base64")
    value: str = Field(description="base64")


class ErasureOut(Answer):
    """An erasure. `report` and its `signature` are there once it is `done`."""

    id: Id
    user_id: str
    state: State
    requested_at: Timestamp
    completed_at: Timestamp | None
    report: dict[str, Any] | None = left_out()
    signature: Signature | None = left_out()


class PlaceHold(Request):
    """Who or what must be kept. Give one of `user_id` and `room_id`."""

    model_config = shows(user_id="alice", reason="Case 17/2026")

    user_id: ExternalId | None = None
    room_id: Id | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=512)]

    @model_validator(mode="after")
    def _names_one(self) -> "PlaceHold":
        if (self.user_id is None) == (self.room_id is None):
            msg = "give either user_id or room_id"
            raise ValueError(msg)
        return self


class HoldPath(Request):
    id: Id


class HoldList(PageRequest):
    """The newest first."""

    is_active: bool | None = Field(
        default=None, description="true: those that hold; false: those that were released."
    )


class HoldOut(Answer):
    """A legal hold. `released_at` is null as long as it holds."""

    id: Id
    user_id: str | None
    room_id: Id | None
    reason: str
    placed_by: str
    placed_at: Timestamp
    released_by: str | None
    released_at: Timestamp | None


class AuditList(Request):
    """The newest first. `cursor` is `next_cursor` of the page before."""

    action: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        default=None, description="An action, or the part before its dot: `client_key`."
    )
    subject: ShortText | None = None
    from_: Annotated[AwareDatetime | None, Field(alias="from", strict=False)] = None
    to: Annotated[AwareDatetime | None, Field(strict=False)] = None
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class AuditEntry(Answer):
    id: int
    at: Timestamp
    actor: str
    action: str
    subject: str
    address: str | None
    details: dict[str, Any]


class AuditPage(Answer):
    """A page of a log; without a total. No `next_cursor`: it was the last."""

    items: list[AuditEntry]
    next_cursor: str | None
