"""Why the conversation refuses."""

from typing import Final

from chatserver.kernel.errors import DomainError, ErrorKind, IdempotencyConflictError
from chatserver.rooms.errors import SEEN


class MessageNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "message.not_found"
    title = "There is no such message."


class MessageTooLongError(DomainError):
    kind = ErrorKind.INVALID
    code = "message.too_long"
    title = "The message is too long."


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


SEND_ERRORS: Final = (
    *SEEN,
    MessageNotFoundError,
    MessageTooLongError,
    IdempotencyConflictError,
)
