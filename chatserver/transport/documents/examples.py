"""Examples of everything that the documents describe, made from the schemas themselves.

A declaration may bring its own (`examples` of a field, or of a whole model where its members
depend on each other). Else a member gets a value that people would expect behind its name, or, if
it has none, one that its type allows.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from chatserver.transport.documents.schemas import REF, Schema

NOW: Final = "2026-03-14T09:26:53.589Z"
LATER: Final = "2026-03-21T09:26:53.589Z"
_DEEPEST: Final = 8
# How many members an example of a request has that needs none of them.
_SOME: Final = 3

# By member, wherever it stands; the first that its schema allows is taken.
_NAMED: Final[Mapping[str, tuple[Any, ...]]] = {
    "actor": ("alice",),
    "address": ("bob@example.com",),
    "after": ("15m",),
    "algorithms": (["RS256"],),
    "assignee_id": ("alice",),
    "audience": ("chat.example.com",),
    "auth": ("tBHItJI5svbpez7KI4CCXg",),
    "avatar_url": ("https://cdn.example.com/alice.png",),
    "body": ("Bob mentioned you in Planning.",),
    "category": ("mentions",),
    "channel": ("email", "socket"),
    "client_msg_id": ("c-01JPA2V9",),
    "code": ("rate.limited", "kQ7xP2mN9vR4tY6wZ1aB3cD5eF8gH0jL"),
    "content": ("Hello Bob!",),
    "content_type": ("image/png",),
    "cors_origins": (["https://app.example.com"],),
    "cost": (0.0021,),
    "count": (1,),
    "created_by": ("alice",),
    "day": ("2026-03-14",),
    "device_id": ("phone",),
    "display_name": ("Alice",),
    "email": ("bob@example.com",),
    "emoji": ("👍",),
    "endpoint": ("https://push.example.com/send/3f1c",),
    "epoch": ("1.1",),
    "event_type": ("message.created",),
    "events": (["message.created"],),
    "external_id": ("alice", "ticket-4711"),
    "filename": ("plan.png",),
    "first": ("2026-03-01",),
    "first_day": ("2026-03-01",),
    "hint": ("…9f3c",),
    "history": ("all",),
    "instructions": ("Answer questions about our products, briefly and politely.",),
    "issuer": ("https://login.example.com/",),
    "jti": ("8f14e45f-ceea-467f",),
    "jwks_url": ("https://login.example.com/.well-known/jwks.json",),
    "key": ("csu_…",),
    "kind": ("smtp", "created"),
    "last": ("2026-03-14",),
    "last_day": ("2026-03-14",),
    "master_key": ("csm_…",),
    "member_ids": (["bob"],),
    "mentions": (["bob"],),
    "metadata": ({"ticket": "4711"},),
    "model": ("gpt-4o-mini",),
    "name": ("Support bot", "support-bot"),
    "node": ("a",),
    "notification_level": ("mentions",),
    "p256dh": ("BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQ",),
    "phone": ("+4915112345678",),
    "placed_by": ("alice",),
    "policy": ("reject",),
    "public_key": ("BElGCi…",),
    "q": ("invoice",),
    "query": ("invoice",),
    "quote": ("Invoices are sent on the first of each month.",),
    "reason": ("spam",),
    "role": ("member",),
    "room_external_id": ("ticket-4711",),
    "room_type": ("group",),
    "scheme": ("standard",),
    "scope": ("all",),
    "scopes": (["rooms:read", "chat:read", "chat:write"],),
    "secret": ("whsec_…",),
    "sender": ("user",),
    "sender_id": ("alice",),
    "sha256": ("n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",),
    "size": (20,),
    "slug": ("acme",),
    "state": ("delivered", "active", "pending"),
    "status": ("complete", "ready"),
    "subject": ("You were mentioned in Planning", "alice"),
    "text": ("Invoices are sent on the first of each month.",),
    "title": ("Planning",),
    "token": ("fcm-registration-token",),
    "type": ("group", "message.created"),
    "uploader_id": ("alice",),
    "url": ("https://example.com/hooks/chat",),
    "user_id": ("alice",),
    "user_ids": (["bob"],),
    "window": ("1s",),
}
_PATTERNED: Final = ("acme", "message.created", "signature", "X-Signature", "hello")


class Examples:
    """Makes examples for the components of one document."""

    def __init__(self, components: Mapping[str, Schema]) -> None:
        self._components = components

    def sent(self, schema: Schema, *, without: Iterable[str] = ()) -> Any:  # noqa: ANN401
        """Give what a caller might send: what is required, or some members if nothing is."""
        made = self._made(schema, "", whole=False, depth=0)
        if isinstance(made, dict):
            gone = set(without)
            return {name: each for name, each in made.items() if name not in gone}
        return made

    def given(self, schema: Schema) -> Any:  # noqa: ANN401
        """Give what a caller might get: every member that has something to say."""
        return self._made(schema, "", whole=True, depth=0)

    def member(self, name: str, schema: Schema) -> Any:  # noqa: ANN401
        """Give a value of one member: of a path or a query."""
        return self._made(schema, name, whole=False, depth=0)

    def _made(self, schema: Schema, name: str, *, whole: bool, depth: int) -> Any:  # noqa: ANN401
        if "$ref" in schema:
            target = str(schema["$ref"]).removeprefix(REF)
            label = name or _noun(target)
            return self._made(self._components[target], label, whole=whole, depth=depth)
        declared = self._declared(schema, name)
        if declared is not None:
            return declared
        for union in ("anyOf", "oneOf", "allOf"):
            if union in schema:
                branch = next(each for each in schema[union] if each.get("type") != "null")
                return self._made(branch, name, whole=whole, depth=depth)
        return self._of_type(schema, name, whole=whole, depth=depth)

    def _declared(self, schema: Schema, name: str) -> Any:  # noqa: ANN401
        """Give the example that a schema brings, or that its name suggests; None without one."""
        fitting = (value for value in _NAMED.get(name, ()) if self._fits(value, schema))
        return next(
            (
                value
                for value in (
                    *schema.get("examples", ()),
                    *fitting,
                    schema.get("const"),
                    schema.get("default"),
                    *schema.get("enum", ()),
                )
                if value is not None
            ),
            None,
        )

    def _of_type(self, schema: Schema, name: str, *, whole: bool, depth: int) -> Any:  # noqa: ANN401
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        match kind:
            case "object":
                return self._object(schema, name, whole=whole, depth=depth)
            case "array":
                if depth > _DEEPEST or not schema.get("items"):
                    return []
                return [self._made(schema["items"], _singular(name), whole=whole, depth=depth + 1)]
            case "string":
                return _text(schema, name)
            case "integer" | "number":
                return _number(schema)
            case _:
                return True if kind == "boolean" else {}

    def _object(self, schema: Schema, name: str, *, whole: bool, depth: int) -> dict[str, Any]:
        properties: dict[str, Schema] = schema.get("properties", {})
        if not properties:
            values = schema.get("additionalProperties")
            if depth > _DEEPEST or not isinstance(values, dict) or not values:
                return {}
            one = self._made(values, _singular(name), whole=whole, depth=depth + 1)
            return {"alice" if "user" in name else "key": one}
        required = set(schema.get("required", ()))
        chosen = [
            member
            for member, each in properties.items()
            if member in required or (whole and self._is_told(member, each))
        ]
        if not whole and all(member == "id" or member.endswith("_id") for member in chosen):
            chosen += self._some(properties, chosen)
        made: dict[str, Any] = {}
        for member in chosen:
            each = properties[member]
            if whole and _is_nullable(each) and not self._is_told(member, each):
                made[member] = None
            else:
                label = f"{name}_id" if member == "id" and name else member
                made[member] = self._made(each, label, whole=whole, depth=depth + 1)
        return made

    def _some(self, properties: Mapping[str, Schema], chosen: list[str]) -> list[str]:
        """Choose what to say in a request that may say nothing, or names nothing but a thing."""
        left = [member for member in properties if member not in chosen]
        named = [member for member in left if member in _NAMED]
        return (named or left)[: 1 if chosen else _SOME]

    def _is_told(self, member: str, schema: Schema) -> bool:
        """Tell whether a member that may be null or missing has something to say by its name."""
        if not _is_nullable(schema):
            return True
        return any(self._fits(value, schema) for value in _NAMED.get(member, ()))

    def _fits(self, value: Any, schema: Schema) -> bool:  # noqa: ANN401
        if "$ref" in schema:
            schema = self._components[str(schema["$ref"]).removeprefix(REF)]
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return any(self._fits(value, each) for each in schema[union])
        if schema.get("properties"):
            return False  # its members have examples of their own
        kinds = schema.get("type", ())
        allowed = [kinds] if isinstance(kinds, str) else kinds
        return (
            any(_is_a(value, each) for each in allowed)
            and value in schema.get("enum", (value,))
            and value == schema.get("const", value)
            and self._is_inside(value, schema)
        )

    def _is_inside(self, value: Any, schema: Schema) -> bool:  # noqa: ANN401
        match value:
            case str():
                return _is_text(value, schema)
            case list():
                return all(self._fits(each, schema.get("items", {})) for each in value)
            case dict():
                values = schema.get("additionalProperties")
                return not isinstance(values, dict) or all(
                    self._fits(each, values) for each in value.values()
                )
            case _:
                return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def _is_a(value: Any, kind: str) -> bool:  # noqa: ANN401
    return isinstance(value, _KINDS.get(kind, ())) and (
        kind == "boolean" or not isinstance(value, bool)
    )


def _is_text(value: str, schema: Schema) -> bool:
    pattern = schema.get("pattern")
    return (
        # Formats have values of their own.
        (schema.get("format") is None or (schema["format"] in {"uri", "date"} and ":" in value))
        and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        and (pattern is None or re.search(pattern, value) is not None)
    )


def _is_nullable(schema: Schema) -> bool:
    return any(each.get("type") == "null" for each in schema.get("anyOf", ()))


def _number(schema: Schema) -> Any:  # noqa: ANN401 - as the schema has it
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + 1
    return max(1, schema.get("minimum", 0))


def _text(schema: Schema, name: str) -> str:
    match schema.get("format"):
        case "uuid":
            return example_id(name)
        case "date-time":
            return LATER if name.startswith(("expires", "open_until", "kept", "next")) else NOW
        case "date":
            return NOW[:10]
        case "uri":
            return "https://example.com/"
        case _:
            candidates = (*_NAMED.get(name, ()), *_PATTERNED, "a" * schema.get("minLength", 1))
            fitting = (each for each in candidates if isinstance(each, str))
            return next((each for each in fitting if _is_text(each, schema)), "")


def example_id(name: str) -> str:
    """Give a UUIDv7 that is the same wherever the same thing is meant."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    return f"019a9c1e-{digits[:4]}-7{digits[4:7]}-8{digits[7:10]}-{digits[10:22]}"


def _noun(component: str) -> str:
    """Take the noun of a model: `RoomOut` is a `room`."""
    words = re.findall(r"[A-Z][a-z0-9]*", component)
    kept = [word for word in words if word not in {"Out", "In", "Whole", "Summary"}]
    return "_".join(kept or words).lower()


def _singular(name: str) -> str:
    if name.endswith("ies"):
        return name[:-3] + "y"
    return name.removesuffix("s")
