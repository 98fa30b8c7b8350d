"""What may be refused about erasures."""

from chatserver.kernel.errors import DomainError, ErrorKind


class ErasureNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "erasure.not_found"
    title = "No user of this name was ever erased."


class LegalHoldActiveError(DomainError):
    """`details`: the `holds` in the way. Releasing them is the application's decision."""

    kind = ErrorKind.CONFLICT
    code = "legal_hold.active"
    title = "A legal hold keeps this. Release it first."


class LegalHoldNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "legal_hold.not_found"
    title = "There is no such hold, or it was released before."


class AuditCursorInvalidError(DomainError):
    kind = ErrorKind.INVALID
    code = "audit.cursor_invalid"
    title = "This cursor is not from here. Begin without one."
