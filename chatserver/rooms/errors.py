"""Why a room refuses."""

from typing import Final

from chatserver.kernel.errors import DomainError, ErrorKind


class RoomNotFoundError(DomainError):
    """Unknown, deleted, another client's, or simply not the caller's: all the same answer."""

    kind = ErrorKind.NOT_FOUND
    code = "room.not_found"
    title = "There is no such room."


class NotARoomMemberError(DomainError):
    """Only said of public channels and of rooms that one was in; else it would tell too much."""

    kind = ErrorKind.FORBIDDEN
    code = "room.not_member"
    title = "Only members may do this."


class RoomFullError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "room.full"
    title = "A direct conversation has two members."


class RoomDeactivatedError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "room.deactivated"
    title = "The room is not active. Send a message or reactivate it."


class RoleMissingError(DomainError):
    kind = ErrorKind.FORBIDDEN
    code = "room.role_missing"
    title = "Your role in this room does not allow this."


class MemberNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "member.not_found"
    title = "There is no such member in this room."


class RoomArchivedError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "room.archived"
    title = "The room is archived: it can be read, and nothing else."


class RoomReadOnlyError(DomainError):
    kind = ErrorKind.FORBIDDEN
    code = "room.read_only"
    title = "Your role may only read in this room."


class RoomMutedError(DomainError):
    kind = ErrorKind.FORBIDDEN
    code = "room.muted"
    title = "You were muted in this room."


class RoomBannedError(DomainError):
    kind = ErrorKind.FORBIDDEN
    code = "room.banned"
    title = "You were banned from this room."


class BanNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "ban.not_found"
    title = "This person is not banned from this room."


# What every look at a room may be answered, and every change of it.
SEEN: Final = (RoomNotFoundError, NotARoomMemberError)
CHANGED: Final = (*SEEN, RoleMissingError)
