"""What may go wrong, in the domain's words. Only the doors know status codes."""

from enum import StrEnum
from typing import Any, ClassVar, TypedDict


class ErrorKind(StrEnum):
    """How a door must treat a refusal. Add one only when a door must treat it differently."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    IN_PROGRESS = "in_progress"
    TOO_LARGE = "too_large"
    GONE = "gone"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    METHOD = "method"
    MALFORMED = "malformed"
    MEDIA_TYPE = "media_type"
    TIMEOUT = "timeout"
    NOT_ACCEPTABLE = "not_acceptable"


class Issue(TypedDict):
    """One thing wrong with one field, as `errors` and `details` list it."""

    field: str
    issue: str


class OperatorError(Exception):
    """Something that whoever runs the server can mend; the text says how."""


class DomainError(Exception):
    """A refusal: expected, explained, never logged as a fault.

    Subclasses set `kind` and a `code` of the contract. `issues` names fields, `retry_after_ms` is
    in milliseconds, `details` are further members for the caller; none may quote his input.
    """

    kind: ClassVar[ErrorKind]
    code: ClassVar[str]
    title: ClassVar[str] = ""

    def __init__(
        self,
        message: str = "",
        *,
        issues: tuple[Issue, ...] = (),
        retry_after_ms: int | None = None,
        **details: Any,  # noqa: ANN401 - whatever JSON the caller may use
    ) -> None:
        super().__init__(message or self.title)
        self.message = message or self.title
        self.issues = issues
        self.retry_after_ms = retry_after_ms
        self.details = details


class PayloadInvalidError(DomainError):
    kind = ErrorKind.INVALID
    code = "payload.invalid"
    title = "The payload is not valid."

    @classmethod
    def of(cls, field: str, issue: str) -> "PayloadInvalidError":
        """Refuse one field of a payload; `field` is a dotted path."""
        return cls(f"{field}: {issue}", issues=({"field": field, "issue": issue},))


class PayloadTooLargeError(DomainError):
    kind = ErrorKind.TOO_LARGE
    code = "payload.too_large"
    title = "The payload is too large."


class EventUnknownError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "event.unknown"
    title = "There is no such command here."


class RouteNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "route.not_found"
    title = "There is nothing at this path."


class MethodNotAllowedError(DomainError):
    kind = ErrorKind.METHOD
    code = "route.method_not_allowed"
    title = "This path does not take this method."


class UnavailableError(DomainError):
    """A part we need is away. Nothing is known to be stored: retry with the same id."""

    kind = ErrorKind.UNAVAILABLE
    code = "unavailable"
    title = "The server can't do this right now. Retry with the same id."

    def __init__(self, message: str = "", *, retry_after_ms: int = 1000) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)


class DrainingError(DomainError):
    kind = ErrorKind.UNAVAILABLE
    code = "server.draining"
    title = "This node is shutting down. Connect again."


class RateLimitedError(DomainError):
    kind = ErrorKind.RATE_LIMITED
    code = "rate.limited"
    title = "Too much at once."


class IdempotencyConflictError(DomainError):
    """The same id or key came with other content."""

    kind = ErrorKind.INVALID
    code = "idempotency.conflict"
    title = "This id was used before, with other content."


class IdempotencyRunningError(DomainError):
    """The first request with this key has not been answered yet."""

    kind = ErrorKind.IN_PROGRESS
    code = "idempotency.in_progress"
    title = "The first request with this key is still running."


class ScopeMissingError(DomainError):
    kind = ErrorKind.FORBIDDEN
    code = "auth.scope_missing"
    title = "This credential may not do this."
