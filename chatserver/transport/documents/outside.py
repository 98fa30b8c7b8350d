"""The routes that are in no registry: for probes, vendors and links in mails."""

from typing import Any, Final


def _health(
    name: str, summary: str, schema: str, example: dict[str, Any], *, unavailable: str | None
) -> dict[str, Any]:
    said = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    content = {"application/json": said}
    responses: dict[str, Any] = {"200": {"description": "Fine", "content": content}}
    if unavailable is not None:
        responses["503"] = {"description": unavailable, "content": content}
    return {"get": _open(name, "health", summary, responses)}


def _open(name: str, tag: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    """Describe an operation that takes no key."""
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "security": [],
        "responses": responses,
    }


def _path(name: str, example: str, description: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "in": "path", "required": True}
    return found | {
        "schema": {"type": "string"},
        "example": example,
        "description": description,
    }


def _refusal(description: str) -> dict[str, Any]:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": description, "content": {"application/problem+json": problem}}


_HEALTH: Final = {
    "/health": _health(
        "health.live", "The process answers.", "Live", {"status": "ok"}, unavailable=None
    ),
    "/health/ready": _health(
        "health.ready",
        "This node can serve callers; `degraded` names what is away without being missed.",
        "Ready",
        {"status": "degraded", "degraded": ["bus"], "unready": []},
        unavailable="This node can't serve callers",
    ),
    "/health/db": _health(
        "health.database",
        "PostgreSQL answers; this one does within 5 s in any case.",
        "DatabaseHealth",
        {"status": "ok", "latency_ms": 0.61, "database": "connected"},
        unavailable="PostgreSQL can't be reached",
    ),
}

_PAGE: Final = {"text/html": {"schema": {"type": "string"}, "example": "<!doctype html>…"}}
_UNSUBSCRIBED: Final = {
    "200": {"description": "A page for people", "content": _PAGE},
    "404": _refusal("The token is not from here"),
    "422": _refusal("The body is not `List-Unsubscribe=One-Click`"),
}
_TOKEN: Final = [_path("token", "AAGa…", "From the link in a mail.")]
_ONE_CLICK: Final = {
    "application/x-www-form-urlencoded": {
        "schema": {
            "type": "object",
            "required": ["List-Unsubscribe"],
            "properties": {"List-Unsubscribe": {"const": "One-Click"}},
        },
        "example": {"List-Unsubscribe": "One-Click"},
    }
}
_RECEIVED: Final = {
    "type": "object",
    "required": ["id", "duplicate"],
    "properties": {
        "id": {"type": ["string", "null"]},
        "duplicate": {"type": "boolean"},
    },
}

_INBOUND: Final = {
    "200": {
        "description": "Committed, now or before",
        "content": {
            "application/json": {
                "schema": _RECEIVED,
                "example": {"id": "019a9c1e-77d4-7bb2-9a11-0242ac120002", "duplicate": False},
            }
        },
    },
    "401": _refusal("The signature is missing, wrong or too old; or there is no such source"),
    "406": _refusal("This source takes no such event"),
    "413": _refusal("More than 1 MiB"),
    "415": _refusal("The body is packed"),
    "422": _refusal("The body is not what the source sends"),
    "429": _refusal("More than the source may send"),
    "503": _refusal("The database is away; send it again"),
}
_SLUGS: Final = [
    _path("client_slug", "acme", "The client."),
    _path("event", "stripe", "The slug of one of its sources."),
]
_ANYTHING: Final = {
    "application/json": {
        "schema": {"type": "object"},
        "example": {"id": "evt_1", "type": "invoice.paid"},
    }
}

_HEARD: Final = {
    "200": {
        "description": "Committed, now or before; `known` is false for a mail of somebody else's",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["duplicate", "known"],
                    "properties": {
                        "duplicate": {"type": "boolean"},
                        "known": {"type": "boolean"},
                    },
                },
                "example": {"duplicate": False, "known": True},
            }
        },
    },
    "401": _refusal("The signature is missing, wrong or too old; or there is no such provider"),
    "406": _refusal("This event will never be taken; do not send it again"),
    "413": _refusal("More than 256 KiB"),
    "503": _refusal("The database is away; send it again"),
}
_VAPID: Final = {
    "200": {
        "description": "The `applicationServerKey` of `PushManager.subscribe()`",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["public_key"],
                    "properties": {"public_key": {"type": "string"}},
                },
                "example": {"public_key": "BCN21SL3ViC-Ag-G9_JaWamd…"},
            }
        },
    },
    "503": _refusal("The database is away"),
}
_PROVIDER: Final = [_path("provider_id", "019a9c1e-77d4-7bb2-9a11-0242ac120002", "The provider.")]

# Everything that isn't in the registry: it takes no key, or another proof than a key.
TAGS: Final = ("health", "inbound", "unsubscribe", "callbacks", "push")
OUTSIDE: Final = _HEALTH | {
    "/webhooks/{client_slug}/{event}": {
        "post": _open("inbound.take", "inbound", "Take a vendor's signed request.", _INBOUND)
        | {"parameters": _SLUGS, "requestBody": {"required": True, "content": _ANYTHING}},
    },
    "/u/{token}": {
        "get": _open("unsubscribe.ask", "unsubscribe", "Show the button.", _UNSUBSCRIBED)
        | {"parameters": _TOKEN},
        "post": _open("unsubscribe.end", "unsubscribe", "Unsubscribe (RFC 8058).", _UNSUBSCRIBED)
        | {"parameters": _TOKEN, "requestBody": {"required": True, "content": _ONE_CLICK}},
    },
    "/callbacks/{provider_id}": {
        "post": _open("callback.take", "callbacks", "Take a mail provider's signed event.", _HEARD)
        | {"parameters": _PROVIDER, "requestBody": {"required": True, "content": _ANYTHING}},
    },
    "/push/vapid-key": {
        "get": _open("push.vapid_key", "push", "Give the key browsers subscribe with.", _VAPID),
    },
}
