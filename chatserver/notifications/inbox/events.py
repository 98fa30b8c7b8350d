"""What a person's devices hear of their notifications: in `/notifications` alone, without a seq.

Whoever was away lists them; nothing is replayed.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from chatserver.kernel.clock import rfc3339
from chatserver.kernel.events import SYSTEM, Fact
from chatserver.kernel.wire import Answer, Id, Timestamp, left_out
from chatserver.notifications.inbox.schemas import NotificationOut

INBOX_FACTS = frozenset({"notification.created", "notification.read", "notification.unread"})


class CreatedData(Answer):
    """`replaces`: the one that this stands for from now on; take that away."""

    notification: NotificationOut
    replaces: Id | None = left_out()


class ReadData(Answer):
    """Which ones were read, on whichever device. `up_to`: all until this one, or all at all."""

    ids: list[Id] | None
    up_to: Id | None
    read_at: Timestamp


class UnreadData(Answer):
    """How many are unread now: absolute, at most 10,000."""

    unread: int


def created(
    client_id: UUID, user_id: UUID, notification: NotificationOut, *, replaces: UUID | None = None
) -> Fact:
    data: dict[str, Any] = {"notification": notification.model_dump(mode="json")}
    if replaces is not None:
        data["replaces"] = str(replaces)
    return _fact("notification.created", client_id, user_id, data)


def read(
    client_id: UUID,
    user_id: UUID,
    *,
    ids: list[UUID] | None,
    up_to: UUID | None,
    at: datetime,
) -> Fact:
    data = {
        "ids": None if ids is None else [str(each) for each in ids],
        "up_to": None if up_to is None else str(up_to),
        "read_at": rfc3339(at),
    }
    return _fact("notification.read", client_id, user_id, data)


def unread(client_id: UUID, user_id: UUID, count: int) -> Fact:
    return _fact("notification.unread", client_id, user_id, {"unread": count})


def _fact(name: str, client_id: UUID, user_id: UUID, data: dict[str, Any]) -> Fact:
    return Fact(
        type=name,
        client_id=client_id,
        room_id=None,
        actor=SYSTEM,
        data=data,
        sequenced=False,
        audience=(user_id,),
    )
