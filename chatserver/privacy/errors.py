"""What may be refused about erasures."""

from chatserver.kernel.errors import DomainError, ErrorKind


class ErasureNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "erasure.not_found"
    title = "No user of this name was ever erased."


class AuditCursorInvalidError(DomainError):
    kind = ErrorKind.INVALID
    code = "audit.cursor_invalid"
    title = "This cursor is not from here. Begin without one."
