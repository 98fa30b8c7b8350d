"""What may be refused about endpoints."""

from chatserver.kernel.errors import DomainError, ErrorKind


class EndpointNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "endpoint.not_found"
    title = "There is no such webhook endpoint."


class EndpointLimitError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "endpoint.limit"
    title = "There are too many webhook endpoints already."


class SecretLimitError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "endpoint.secret_limit"
    title = "Too many secrets of this endpoint are still valid. Wait until some have ended."


class EndpointDisabledError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "endpoint.disabled"
    title = "This endpoint is disabled. Enable it first: PATCH it with `enabled: true`."


class WebhookEventNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "webhook_event.not_found"
    title = "There is no such event, or this endpoint does not want it."


class EventsTruncatedError(DomainError):
    """Events are kept for 36 days; `min_seq` is the first that is left."""

    kind = ErrorKind.GONE
    code = "webhook_event.truncated"
    title = "Events this old are gone. Begin at min_seq."
