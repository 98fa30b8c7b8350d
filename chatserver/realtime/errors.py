"""What the engine itself refuses."""

from chatserver.kernel.errors import DomainError, ErrorKind


class NamespaceUnknownError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "namespace.unknown"
    title = "Invalid namespace"


class QuotaExceededError(DomainError):
    kind = ErrorKind.RATE_LIMITED
    code = "quota.exceeded"
    title = "There are too many of these already."


class ProtocolViolationError(Exception):
    """A peer broke Engine.IO or Socket.IO so that nothing it sends can be trusted: it is cut."""
