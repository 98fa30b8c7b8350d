"""AsyncAPI 3.0 of the Socket.IO namespaces, from the registry."""

from typing import Any, Final

from chatserver.transport.documents import fixed
from chatserver.transport.documents.examples import NOW, Examples, example_id
from chatserver.transport.documents.schemas import Schema, Schemas
from chatserver.transport.registry import FactSpec, Operation, Registry

_SCHEMAS: Final = {"Actor": fixed.ACTOR, "Error": fixed.SOCKET_ERROR}
_ERROR: Final = {"$ref": "#/components/schemas/Error"}


def asyncapi(registry: Registry) -> dict[str, Any]:
    """Describe every namespace: its commands with their acks, and its facts."""
    schemas = Schemas(registry)
    examples = Examples(schemas.components)
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for namespace in namespaces_of(registry):
        commands = commands_of(registry, namespace)
        facts = facts_of(registry, namespace)
        for command in commands:
            messages[command.name] = _command(schemas, examples, command)
            messages[_ack_name(command)] = _ack(schemas, examples, command)
            operations[f"{_key(namespace)}.{command.name}"] = _receive(namespace, command)
        for fact in facts:
            messages[_fact_key(registry, fact)] = _fact(schemas, examples, fact)
        told = [_fact_key(registry, fact) for fact in facts]
        if told:
            operations[f"{_key(namespace)}.facts"] = _send(namespace, told)
        names = [name for each in commands for name in (each.name, _ack_name(each))]
        channels[_key(namespace)] = {
            "address": namespace,
            "title": namespace,
            "messages": {
                name: {"$ref": f"#/components/messages/{name}"} for name in (*names, *told)
            },
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": fixed.INFO["title"],
            "version": fixed.INFO["version"],
            "description": _TEXT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "socketio": {
                "host": "{host}",
                "protocol": "wss",
                "pathname": "/socket.io/",
                "description": "Socket.IO 4 (Engine.IO 4), WebSocket or long-polling.",
                "variables": {"host": {"default": "localhost"}},
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            },
            "websocket": {
                "host": "{host}",
                "protocol": "wss",
                "pathname": "/api/v1/websocket",
                "title": "Plain WebSocket",
                "description": _PLAIN,
                "variables": {"host": {"default": "localhost"}},
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": dict(sorted(messages.items())),
            "schemas": schemas.used_by(messages) | _SCHEMAS,
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "user",
                    "description": "A scoped key, in `auth: {token}` of each namespace.",
                }
            },
        },
    }


def namespaces_of(registry: Registry) -> list[str]:
    commands = {name for each in registry.operations.values() for name in each.namespaces}
    return sorted(commands | {name for each in registry.facts.values() for name in each.namespaces})


def commands_of(registry: Registry, namespace: str) -> list[Operation]:
    found = (each for each in registry.operations.values() if namespace in each.namespaces)
    return sorted(found, key=lambda each: each.name)


def facts_of(registry: Registry, namespace: str) -> list[FactSpec]:
    found = (each for each in registry.facts.values() if namespace in each.namespaces)
    return sorted(found, key=lambda each: each.name)


def needs(command: Operation) -> str:
    """Say what a caller needs for a command. On sockets there are only scoped keys."""
    if command.scope is None:
        return "Needs no scope."
    return f"Needs the scope `{command.scope.value}`."


_TEXT: Final = (
    "Every command is one JSON object and is acknowledged: `{ok: true, data}` or"
    " `{ok: false, error}`. The ack of a write means that it is committed. Facts with a `seq` are"
    " in the log of their room and can be read again; callers ignore members that they don't know."
)

_PLAIN: Final = (
    "The same commands and facts without Socket.IO: one JSON object a text frame. A command is"
    " `{id, ns, event, data}`, its answer `{id, ok, data|error}`; a command without `id` gets none."
    " A fact has no `id`: `{ns, event, data}`, with the whole fact as `data`. The first frame,"
    ' within 10 s, is `{id, event: "connect", data: {token}}`: it connects every namespace that'
    " the key may read, or with `ns` that one alone, and answers `{namespaces}`; `session.ready`"
    ' follows in each. `{id, ns, event: "disconnect"}` leaves one. Limits are those of Socket.IO:'
    " a command above 128 KiB is refused, a frame above 256 KiB closes with 1009. The server pings"
    " every 25 s with WebSocket's own ping. It closes with 1012 when the client should come back,"
    " 1008 when it should not, 4001 after a refused connect, 1007 for what is not one JSON object."
)


def _key(namespace: str) -> str:
    return namespace.strip("/") or "root"


def _ack_name(command: Operation) -> str:
    return f"{command.name}.ack"


def _fact_key(registry: Registry, fact: FactSpec) -> str:
    """Name a fact's message: a command may have the same name (`notification.read`)."""
    return f"{fact.name}.fact" if fact.name in registry.operations else fact.name


def _ref(namespace: str, message: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{_key(namespace)}/messages/{message}"}


def _receive(namespace: str, command: Operation) -> dict[str, Any]:
    channel = {"$ref": f"#/channels/{_key(namespace)}"}
    return {
        "action": "receive",
        "title": command.name,
        "summary": command.summary,
        "channel": channel,
        "messages": [_ref(namespace, command.name)],
        "reply": {"channel": channel, "messages": [_ref(namespace, _ack_name(command))]},
        "tags": [{"name": command.noun}],
    }


def _send(namespace: str, told: list[str]) -> dict[str, Any]:
    return {
        "action": "send",
        "title": f"Facts of {namespace}",
        "channel": {"$ref": f"#/channels/{_key(namespace)}"},
        "messages": [_ref(namespace, name) for name in told],
    }


def _command(schemas: Schemas, examples: Examples, command: Operation) -> dict[str, Any]:
    return {
        "name": command.name,
        "title": command.name,
        "summary": command.summary,
        "description": f"{command.description}\n\n{needs(command)}".strip(),
        "payload": schemas.sent(command.request),
        "examples": [_example(command.name, examples.sent(schemas.sent(command.request)))],
    }


def _ack(schemas: Schemas, examples: Examples, command: Operation) -> dict[str, Any]:
    data = schemas.given(command.response)
    done = _object(ok={"const": True}, data=data)
    refused = _object(ok={"const": False}, error=_ERROR)
    return {
        "name": _ack_name(command),
        "title": f"Ack of {command.name}",
        "payload": {"oneOf": [done, refused]},
        "examples": [_example(command.name, {"ok": True, "data": examples.given(data)})],
        "x-errors": sorted({error.code for error in command.errors}),
    }


def _fact(schemas: Schemas, examples: Examples, fact: FactSpec) -> dict[str, Any]:
    data = schemas.given(fact.data_model)
    return {
        "name": fact.name,
        "title": fact.name,
        "summary": fact.summary,
        "payload": _envelope(fact, data) if fact.enveloped else data,
        "examples": [_example(fact.name, _told(fact, examples.given(data)))],
        "x-sequenced": fact.sequenced,
    }


def _told(fact: FactSpec, data: Any) -> Any:  # noqa: ANN401 - an example
    """Give a fact as it comes, around an example of its data."""
    if not fact.enveloped:
        return data
    told = {"v": 1, "type": fact.name, "id": example_id("fact_id")}
    if fact.sequenced:
        told |= {"room_id": example_id("room_id"), "epoch": "1.1", "seq": 42}
    return told | {"ts": NOW, "actor": {"type": "user", "id": "alice"}, "data": data}


def _example(name: str, payload: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"name": name, "payload": payload}


def _envelope(fact: FactSpec, data: Schema) -> Schema:
    members: dict[str, Schema] = {
        "v": {"const": 1},
        "type": {"const": fact.name},
        "id": {"type": "string", "format": "uuid"},
        "ts": {"type": "string", "format": "date-time"},
        "actor": {"$ref": "#/components/schemas/Actor"},
        "data": data,
    }
    optional: dict[str, Schema] = {"client_msg_id": {"type": "string"}}
    room = {"type": "string", "format": "uuid"}
    if fact.sequenced:
        members |= {
            "room_id": room,
            "epoch": {"type": "string"},
            "seq": {"type": "integer", "minimum": 1},
        }
    else:
        optional["room_id"] = room
    whole = _object(**members)
    return whole | {"properties": members | optional}


def _object(**members: Schema) -> Schema:
    return {"type": "object", "required": list(members), "properties": members}
