"""The parts of the documents that no registry entry says: headers, problems, health."""

from typing import Any, Final

from chatserver.transport.answers import EVENTS, LINES

INFO: Final = {
    "title": "chatserver",
    # Of the contract, not of the program: it changes when callers have to.
    "version": "1.0.0",
    "summary": "Rooms, durable ordered messages and recovery over plain Socket.IO and REST.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

SECURITY: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The operator key, a master key (`csm_…`) or a scoped key (`csu_…`).",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same keys, for tools that can't set `Authorization`.",
    },
}

PARAMETERS: Final = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": (
            "Makes a repeat of this request harmless for 24 hours: it is answered as the first"
            " one was. The key belongs to the caller; with another path or body it is refused."
        ),
        "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,128}$"},
    },
}

HEADERS: Final = {
    "XRequestId": {
        "description": "The caller's `X-Request-Id` or trace id, else one made here.",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "What is left of each limit, and when it is full again (IETF `RateLimit`).",
        "schema": {"type": "string"},
        "example": '"key";r=999;t=1',
    },
    "RateLimitPolicy": {
        "description": "The limits that hold for this caller (IETF `RateLimit-Policy`).",
        "schema": {"type": "string"},
        "example": '"key";q=1000;w=10',
    },
    "RetryAfter": {
        "description": "Seconds to wait before trying again.",
        "schema": {"type": "integer"},
        "example": 1,
    },
    "IdempotencyReplayed": {
        "description": "`true` when this is the answer to an earlier request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}

# What every answer carries, and what some refusals do besides.
ANSWERED: Final = {
    "X-Request-Id": {"$ref": "#/components/headers/XRequestId"},
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
}
REFUSED: Final = {
    status: {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}} for status in (429, 503)
}

_DELTA: Final = (
    "event: message.delta\n"
    'data: {"message_id": "019a9c1e-77d4-7bb2-9a11-0242ac120002", "generation": 1, "index": 0,'
    ' "text": "Invoices"}\n\n'
)
_LINE: Final = '{"kind": "user", "external_id": "alice", "display_name": "Alice"}\n'
# What comes while it is written has no schema but its form.
STREAMED: Final = {
    EVENTS: {"schema": {"type": "string"}, "example": _DELTA},
    LINES: {"schema": {"type": "string"}, "example": _LINE},
}

_ISSUE: Final = {
    "type": "object",
    "required": ["field", "issue"],
    "properties": {"field": {"type": "string"}, "issue": {"type": "string"}},
}

_PROBLEM: Final = {
    "type": "object",
    "description": "A refusal (RFC 9457). `code` is what programs decide by.",
    "required": [
        *("type", "title", "status", "detail", "code"),
        *("retryable", "retry_after_ms", "errors", "trace_id"),
    ],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "retryable": {"type": "boolean"},
        "retry_after_ms": {"type": ["integer", "null"]},
        "errors": {"type": "array", "items": _ISSUE},
        "details": {"type": "object", "description": "More that this code says, where it does."},
        "trace_id": {"type": "string"},
    },
}

# The same refusal as acks and CONNECT_ERROR carry it.
SOCKET_ERROR: Final = {
    "type": "object",
    "description": "A refusal. `code` is what programs decide by.",
    "required": [
        *("code", "message", "status", "retryable", "retry_after_ms", "details", "trace_id"),
    ],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "status": {"type": "integer"},
        "retryable": {"type": "boolean"},
        "retry_after_ms": {"type": ["integer", "null"]},
        "details": {
            "description": "The fields that are wrong; or what this code says more, with the"
            " fields as `errors`.",
            "anyOf": [{"type": "array", "items": _ISSUE}, {"type": "object"}],
        },
        "trace_id": {"type": "string"},
    },
}

ACTOR: Final = {
    "type": "object",
    "description": "Who did it: a user by `external_id`, a bot by id, the application by nothing.",
    "required": ["type", "id"],
    "properties": {
        "type": {"type": "string", "enum": ["user", "bot", "system", "client"]},
        "id": {"type": ["string", "null"]},
    },
}


def _status(**properties: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON schemas
    return {"type": "object", "required": list(properties), "properties": properties}


_NAMES: Final = {"type": "array", "items": {"type": "string"}}

SCHEMAS: Final = {
    "Problem": _PROBLEM,
    "Live": _status(status={"const": "ok"}),
    "Ready": _status(
        status={"type": "string", "enum": ["ready", "degraded", "unready"]},
        degraded=_NAMES,
        unready=_NAMES,
    ),
    "DatabaseHealth": _status(
        status={"type": "string", "enum": ["ok", "unavailable"]},
        latency_ms={"type": ["number", "null"]},
        database={"type": "string", "enum": ["connected", "unreachable"]},
    ),
}
