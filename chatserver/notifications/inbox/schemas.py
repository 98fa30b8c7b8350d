"""In-app notifications, as devices get and answer them."""

from typing import Annotated, Any, TypeAlias

from pydantic import Field, StringConstraints

from chatserver.kernel.wire import Answer, Id, Metadata, Request, Timestamp

Category: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Ids: TypeAlias = Annotated[list[Id], Field(min_length=1, max_length=100)]


class SocketContent(Request):
    """What a notification says inside of the application."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    body: Annotated[str, StringConstraints(max_length=8000)] | None = None
    data: Metadata = {}


class NotificationList(Request):
    """The newest first. `cursor` is `next_cursor` of the page before."""

    cursor: Id | None = None
    unread_only: bool = False
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class NotificationIds(Request):
    """Which ones; those that are unknown, or were answered before, change nothing."""

    ids: Ids


class ReadAll(Request):
    """`up_to`: the newest that the device shows, so that what comes meanwhile stays unread."""

    up_to: Id | None = None


class NotificationOut(Answer):
    id: Id
    category: str
    title: str
    body: str | None
    data: dict[str, Any]
    created_at: Timestamp
    read_at: Timestamp | None


class NotificationPage(Answer):
    """`unread` is of all of them, at most 10,000."""

    items: list[NotificationOut]
    next_cursor: str | None
    unread: int


class Acked(Answer):
    acked: int


class Read(Answer):
    """How many became read just now, and how many are unread still."""

    read: int
    unread: int
