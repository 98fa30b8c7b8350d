"""What may go wrong with notifications."""

from chatserver.kernel.errors import DomainError, ErrorKind


class NotificationNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "notification.not_found"
    title = "There is no such notification."
