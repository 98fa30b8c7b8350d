"""The queue of support rooms as callers send and see it."""

from typing import Literal, TypeAlias

from pydantic import model_validator

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, ExternalId, Id, Request, Timestamp
from chatserver.rooms.schemas import RoomOut

Status: TypeAlias = Literal["open", "waiting", "closed"]


class ListQueue(PageRequest):
    """Which rooms of the queue; without a status, all that are not closed."""

    status: Status | None = None
    assignee_id: ExternalId | None = None
    unassigned: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> "ListQueue":
        if self.unassigned and self.assignee_id is not None:
            msg = "unassigned can't stand beside assignee_id"
            raise ValueError(msg)
        return self


class Assign(Request):
    """`user_id: null` gives the room back to the queue."""

    room_id: Id
    user_id: ExternalId | None


class QueueItem(Answer):
    """A support room and who has to act.

    `open`: the team has to answer, since `since`. `waiting`: the customer has to. `closed`: nobody,
    until somebody writes again.
    """

    room: RoomOut
    status: Status
    requester_id: str | None
    assignee_id: str | None
    since: Timestamp
    last_sender_id: str | None
