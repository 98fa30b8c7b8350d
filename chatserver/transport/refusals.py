"""The only file with status codes: a refusal, as each door has to say it."""

from http import HTTPStatus
from typing import Any, Final

from chatserver.kernel.errors import DomainError, ErrorKind

STATUS: Final = {
    ErrorKind.INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorKind.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    ErrorKind.FORBIDDEN: HTTPStatus.FORBIDDEN,
    ErrorKind.NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorKind.CONFLICT: HTTPStatus.CONFLICT,
    ErrorKind.IN_PROGRESS: HTTPStatus.CONFLICT,
    ErrorKind.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ErrorKind.GONE: HTTPStatus.GONE,
    ErrorKind.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorKind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorKind.METHOD: HTTPStatus.METHOD_NOT_ALLOWED,
    ErrorKind.MALFORMED: HTTPStatus.BAD_REQUEST,
    ErrorKind.MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ErrorKind.TIMEOUT: HTTPStatus.REQUEST_TIMEOUT,
    ErrorKind.NOT_ACCEPTABLE: HTTPStatus.NOT_ACCEPTABLE,
}
RETRYABLE: Final = {
    ErrorKind.RATE_LIMITED,
    ErrorKind.UNAVAILABLE,
    ErrorKind.IN_PROGRESS,
    ErrorKind.TIMEOUT,
}
INTERNAL: Final = "internal.error"


def refusal(error: DomainError, trace_id: str) -> dict[str, Any]:
    """Say it as an ack's `error`, the data of CONNECT_ERROR and a WebSocket frame's `error`."""
    return {
        "code": error.code,
        "message": error.message,
        "status": int(STATUS[error.kind]),
        "retryable": error.kind in RETRYABLE,
        "retry_after_ms": error.retry_after_ms,
        "details": _details(error),
        "trace_id": trace_id,
    }


def bug(trace_id: str) -> dict[str, Any]:
    """Say that something broke, without saying what: the log has it under the same trace id."""
    return {
        "code": INTERNAL,
        "message": "Something broke here. The log has it under the trace id.",
        "status": int(HTTPStatus.INTERNAL_SERVER_ERROR),
        "retryable": True,
        "retry_after_ms": 1000,
        "details": [],
        "trace_id": trace_id,
    }


def problem(error: dict[str, Any], title: str) -> dict[str, Any]:
    """Say the same as `application/problem+json` (RFC 9457)."""
    details = error["details"]
    members = dict(details) if isinstance(details, dict) else {}
    issues = members.pop("errors", []) if isinstance(details, dict) else details
    return {
        "type": f"/docs/errors#{error['code']}",
        "title": title,
        "status": error["status"],
        "detail": error["message"],
        "code": error["code"],
        "retryable": error["retryable"],
        "retry_after_ms": error["retry_after_ms"],
        "errors": issues,
        "trace_id": error["trace_id"],
    } | ({"details": members} if members else {})


def _details(error: DomainError) -> list[Any] | dict[str, Any]:
    """Give the fields that are wrong; where there is more to say, that, with them as `errors`."""
    if not error.details:
        return list(error.issues)
    return error.details | ({"errors": list(error.issues)} if error.issues else {})
