"""What may be refused about deliveries."""

from chatserver.kernel.errors import DomainError, ErrorKind


class DeliveryNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "delivery.not_found"
    title = "There is no such delivery."


class DeliveryUnsettledError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "delivery.unsettled"
    title = "This delivery is being sent just now."


class DeliveryCursorInvalidError(DomainError):
    kind = ErrorKind.INVALID
    code = "delivery.cursor_invalid"
    title = "This cursor is not from here. Begin without one."


class DeliveryNotReplayableError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "delivery.not_replayable"
    title = "This delivery can't be sent again: it went nowhere, or straight into an inbox."
