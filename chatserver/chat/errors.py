"""Why the conversation refuses."""

from typing import Final

from chatserver.kernel.errors import DomainError, ErrorKind, IdempotencyConflictError
from chatserver.rooms.errors import (
    SEEN,
    RoomArchivedError,
    RoomMutedError,
    RoomReadOnlyError,
)


class MessageNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "message.not_found"
    title = "There is no such message."


class MessageTooLongError(DomainError):
    kind = ErrorKind.INVALID
    code = "message.too_long"
    title = "The message is too long."


class MessageNotYoursError(DomainError):
    kind = ErrorKind.FORBIDDEN
    code = "message.not_yours"
    title = "Only who wrote the message may do this."


class MessageConflictError(DomainError):
    """It was changed since: `version` is what it is now."""

    kind = ErrorKind.CONFLICT
    code = "message.conflict"
    title = "The message was changed meanwhile. Read it again."


class EditWindowOverError(DomainError):
    kind = ErrorKind.FORBIDDEN
    code = "message.edit_window"
    title = "The message is too old to be edited."


class MessageRejectedError(DomainError):
    """A rule of the client refuses the text. Which one is named, what it looks for is not."""

    kind = ErrorKind.INVALID
    code = "message.rejected"
    title = "The message breaks a rule of this application."


class SlowModeError(DomainError):
    kind = ErrorKind.RATE_LIMITED
    code = "message.slow_mode"
    title = "The room is in slow mode. Wait a little."


class TooManyReactionsError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "message.too_many_reactions"
    title = "The message has as many different reactions as it may have."


class TooManyPinsError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "room.too_many_pins"
    title = "The room has as many pins as it may have."


class EpochMismatchError(DomainError):
    """The caller's log is another one, or ends later: it must be reloaded from a snapshot."""

    kind = ErrorKind.CONFLICT
    code = "epoch.mismatch"
    title = "This is not the log you know. Reload the room."


class HistoryTruncatedError(DomainError):
    """What is asked for was removed, or may not be read by this member."""

    kind = ErrorKind.GONE
    code = "history.truncated"
    title = "The log no longer reaches back so far. Reload the room."


class CursorInvalidError(DomainError):
    kind = ErrorKind.INVALID
    code = "cursor.invalid"
    title = "This cursor is not from here. Sync without one."


# What every change of a message may be answered.
SILENCED: Final = (RoomMutedError, RoomArchivedError)
SEND_ERRORS: Final = (
    *SEEN,
    MessageNotFoundError,
    MessageTooLongError,
    MessageRejectedError,
    SlowModeError,
    RoomReadOnlyError,
    *SILENCED,
    IdempotencyConflictError,
)
EDIT_ERRORS: Final = (
    MessageNotFoundError,
    MessageNotYoursError,
    MessageConflictError,
    EditWindowOverError,
    MessageTooLongError,
    MessageRejectedError,
    *SILENCED,
)
