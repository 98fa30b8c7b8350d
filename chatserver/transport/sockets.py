"""The Socket.IO door: authenticates connects, runs commands from the registry, answers each."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import uuid4

import orjson
import structlog

from chatserver.kernel import content
from chatserver.kernel.clock import Clock, rfc3339, utc_now
from chatserver.kernel.errors import DomainError, EventUnknownError, PayloadInvalidError
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.ports import Handshake, Refused
from chatserver.transport.refusals import bug, refusal
from chatserver.transport.registry import Registry, call

log = structlog.get_logger(__name__)

# (handshake, token, device id, client slug) to principal; raises a DomainError to refuse.
Authenticate: TypeAlias = Callable[
    [Handshake, str | None, str | None, str | None], Awaitable[Principal]
]


class SocketDoor:
    """What the engine asks; see `realtime.ports.Door`.

    `foreign` is the refusal for a second credential that belongs to somebody else, `scopes` what
    a key must have to connect each namespace.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        authenticate: Authenticate,
        foreign: type[DomainError],
        limits: Mapping[str, Any],
        features: Mapping[str, Any],
        scopes: Mapping[str, Scope],
        clock: Clock = utc_now,
    ) -> None:
        self._registry = registry
        self._authenticate = authenticate
        self._foreign = foreign
        self._limits = dict(limits)
        self._features = dict(features)
        self._scopes = dict(scopes)
        self._clock = clock
        # Told of each command that was answered, and how: `ok` or a code.
        self.answered: Callable[[str, str], None] = lambda _, __: None

    async def accept(
        self, namespace: str, handshake: Handshake, auth: object, first: Principal | None
    ) -> Principal:
        """Authenticate a connect.

        Raises:
            Refused: with the contract's error object; anything unexpected is a refusal, too.
        """
        trace_id = uuid4().hex
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                principal = await self._accept(handshake, auth, first)
                # Being connected is reading: facts come by themselves.
                principal.require(self._scopes[namespace])
                return principal
            except Exception as error:
                explained = _explain(error, trace_id, "connect_failed", namespace=namespace)
                raise Refused(explained) from error

    async def answer(
        self, principal: Principal, namespace: str, event: str, payload: object
    ) -> bytes:
        trace_id = uuid4().hex
        with structlog.contextvars.bound_contextvars(trace_id=trace_id):
            try:
                done = await self._run(principal, namespace, event, payload)
                self.answered(event, "ok")
                return done
            except Exception as error:  # noqa: BLE001 - a caller always gets an answer
                explained = _explain(
                    error, trace_id, "event_failed", socket_event=event[:64], namespace=namespace
                )
                known = self._registry.command(namespace, event) is not None
                self.answered(event if known else "unknown", explained["code"])
                return orjson.dumps({"ok": False, "error": explained})

    def refuse(self, error: Exception) -> dict[str, Any]:
        return _explain(error, uuid4().hex, "connection_failed")

    def welcome(self, principal: Principal, session_id: str) -> dict[str, Any]:
        return {
            "session_id": session_id,
            "resumed": False,
            "server_time": rfc3339(self._clock()),
            "user": {"user_id": principal.external_id, "display_name": principal.display_name},
            "auth": {
                "key_id": principal.key_id,
                "scopes": sorted(principal.scopes),
                "expires_at": _moment(principal.expires_at),
                "device_id": principal.device_id or None,
            },
            "limits": self._limits,
            "features": self._features,
        }

    async def _accept(
        self, handshake: Handshake, auth: object, first: Principal | None
    ) -> Principal:
        content.check(auth)
        members = auth if isinstance(auth, dict) else {}
        principal = await self._authenticate(
            handshake,
            _text(members, "token"),
            _text(members, "device_id"),
            _text(members, "client"),
        )
        if first is not None and _person(first) != _person(principal):
            raise self._foreign
        return principal

    async def _run(
        self, principal: Principal, namespace: str, event: str, payload: object
    ) -> bytes:
        operation = self._registry.command(namespace, event)
        if operation is None:
            raise EventUnknownError
        done = await call(operation, principal, payload)
        return b'{"ok":true,"data":%b}' % done.__pydantic_serializer__.to_json(done)


def _explain(error: Exception, trace_id: str, event: str, **where: str) -> dict[str, Any]:
    if isinstance(error, DomainError):
        return refusal(error, trace_id)
    log.error(event, exc_info=error, **where)
    return bug(trace_id)


def _text(members: dict[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise PayloadInvalidError.of(f"auth.{name}", "must be a string")
    return value


def _person(principal: Principal) -> tuple[object, ...]:
    return (principal.client_id, principal.user_id)


def _moment(at: float | None) -> str | None:
    return None if at is None else rfc3339(datetime.fromtimestamp(at, UTC))
