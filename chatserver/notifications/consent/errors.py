"""What may be refused about suppressions and unsubscribing."""

from chatserver.kernel.errors import DomainError, ErrorKind


class SuppressionNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "suppression.not_found"
    title = "There is no such suppression."


class UnsubscribeTokenError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "unsubscribe.not_found"
    title = "This link is not from here, or its client is gone."
