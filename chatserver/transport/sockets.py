"""The Socket.IO door: authenticates connects, runs commands from the registry, answers each."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import uuid4

import orjson
import structlog

from chatserver.infra import tracing
from chatserver.infra.logging import TRACE, Trace
from chatserver.kernel import content
from chatserver.kernel.clock import Clock, rfc3339, utc_now
from chatserver.kernel.errors import (
    DomainError,
    EventUnknownError,
    PayloadInvalidError,
    PayloadTooLargeError,
)
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.ports import Accepted, Handshake, Offence, Refused
from chatserver.transport.limits import Gate
from chatserver.transport.refusals import bug, refusal
from chatserver.transport.registry import Registry, call

log = structlog.get_logger(__name__)

# (handshake, token, device id, client slug) to who it is; raises a DomainError to refuse. The token
# is whatever was sent: one that is no text is no key, and told so like any other that is none.
Authenticate: TypeAlias = Callable[[Handshake, object, str | None, str | None], Awaitable[Accepted]]
# All that an expired credential may still do.
REFRESH: Final = "auth.refresh"
# What metrics and traces call a command that there isn't: its name is a caller's own text.
UNKNOWN: Final = "unknown"
LONGEST_SLUG: Final = 64
# See `realtime.ports.Door`. A burst of one sender's messages shares a commit.
PASSED_ON: Final = frozenset({"message.send"})
# What no working client sends.
OFFENCES: Final = (PayloadInvalidError, PayloadTooLargeError, EventUnknownError)


class SocketDoor:
    """What the engine asks; see `realtime.ports.Door`.

    `foreign` is the refusal for a second credential that belongs to somebody else, `expired` that
    for whatever else than a refresh comes with a credential whose time is over; `scopes` is what a
    key must have to connect each namespace.
    """

    def __init__(  # noqa: PLR0913 - what the door asks of everybody else
        self,
        *,
        registry: Registry,
        authenticate: Authenticate,
        foreign: type[DomainError],
        expired: type[DomainError],
        limits: Callable[[Principal], Mapping[str, Any] | orjson.Fragment],
        features: Mapping[str, Any],
        scopes: Mapping[str, Scope],
        gate: Gate | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.passed_on = PASSED_ON
        self._registry = registry
        self._authenticate = authenticate
        self._foreign = foreign
        self._expired = expired
        self._limits = limits
        self._gate = gate
        self._features = orjson.Fragment(orjson.dumps(features))
        self._scopes = dict(scopes)
        self._clock = clock
        self._welcomed: tuple[Principal | None, orjson.Fragment] = (None, orjson.Fragment(b""))
        # Told of each command that was answered, how (`ok` or a code), and when its turn came.
        self.answered: Callable[[str, str, float], None] = lambda _, __, ___: None

    async def accept(
        self, namespace: str, handshake: Handshake, auth: object, first: Principal | None
    ) -> Accepted:
        """Authenticate a connect.

        Raises:
            Refused: with the contract's error object; anything unexpected is a refusal, too.
        """
        trace = Trace()
        before = TRACE.set(trace)
        try:
            return await self._accept(namespace, handshake, auth, first)
        except Exception as error:
            explained = _explain(error, trace.id, "connect_failed", namespace=namespace)
            raise Refused(explained) from error
        finally:
            TRACE.reset(before)

    async def answer(
        self, principal: Principal, namespace: str, event: str, payload: object
    ) -> bytes:
        if not tracing.is_on():
            return await self._answer(Trace(), principal, namespace, event, payload)
        name = event if self._registry.command(namespace, event) is not None else UNKNOWN
        with tracing.span(name, kind="server", namespace=namespace) as span:
            return await self._answer(
                Trace(span.trace_id), principal, namespace, event, payload, span
            )

    async def _answer(
        self,
        trace: Trace,
        principal: Principal,
        namespace: str,
        event: str,
        payload: object,
        span: tracing.Span | None = None,
    ) -> bytes:
        before = TRACE.set(trace)
        began = time.perf_counter()
        try:
            done = await self._run(principal, namespace, event, payload)
            self.answered(event, "ok", began)
            return done
        except Exception as error:  # noqa: BLE001 - a caller always gets an answer
            refused, code = self._refused(error, trace, namespace, event)
            known = self._registry.command(namespace, event) is not None
            self.answered(event if known else UNKNOWN, code, began)
            if span is not None:
                span.fails(code)
            return refused
        finally:
            TRACE.reset(before)

    def _refused(
        self, error: Exception, trace: Trace, namespace: str, event: str
    ) -> tuple[bytes, str]:
        explained = _explain(
            error, trace.id, "event_failed", socket_event=event[:64], namespace=namespace
        )
        refused = orjson.dumps({"ok": False, "error": explained})
        code: str = explained["code"]
        return (Offence(refused) if isinstance(error, OFFENCES) else refused), code

    def refuse(self, error: Exception) -> dict[str, Any]:
        return _explain(error, uuid4().hex, "connection_failed")

    def welcome(self, principal: Principal, session_id: str) -> dict[str, Any]:
        if self._welcomed[0] is not principal:
            # One connects to three namespaces in a row, and is the same person in each.
            self._welcomed = (principal, orjson.Fragment(orjson.dumps(auth_of(principal), str)))
        return {
            "session_id": session_id,
            "resumed": False,
            "server_time": rfc3339(self._clock()),
            "user": {"user_id": principal.external_id, "display_name": principal.display_name},
            "auth": self._welcomed[1],
            "limits": self._limits(principal),
            "features": self._features,
        }

    async def _accept(
        self, namespace: str, handshake: Handshake, auth: object, first: Principal | None
    ) -> Accepted:
        content.check(auth)
        members = auth if isinstance(auth, dict) else {}
        if len(_text(members, "client") or "") > LONGEST_SLUG:
            # Unlike the rest it would be kept with the connection, however long it is.
            raise PayloadInvalidError.of("auth.client", "is no slug")
        accepted = await self._authenticate(
            handshake,
            members.get("token"),
            _text(members, "device_id"),
            _text(members, "client"),
        )
        if first is not None and _person(first) != _person(accepted.principal):
            raise self._foreign
        if first is not None and accepted.in_limbo:
            raise self._expired
        # Being connected is reading: facts come by themselves.
        accepted.principal.require(self._scopes[namespace])
        return accepted

    async def _run(
        self, principal: Principal, namespace: str, event: str, payload: object
    ) -> bytes:
        if self._gate is not None:
            await self._gate.command(principal, event)
        operation = self._registry.command(namespace, event)
        if event != REFRESH and self._is_over(principal):
            raise self._expired("The credential has expired. Only auth.refresh is taken now.")
        if operation is None:
            raise EventUnknownError
        done = await call(operation, principal, payload)
        return b'{"ok":true,"data":%b}' % done.as_json()

    def _is_over(self, principal: Principal) -> bool:
        ends = principal.expires_at
        return ends is not None and ends <= self._clock().timestamp()


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


def auth_of(principal: Principal) -> dict[str, Any]:
    """Say what a connection goes on with; see `transport.sessions.SessionAuth`."""
    return {
        "key_id": principal.key_id,
        "scopes": sorted(principal.scopes),
        "expires_at": _moment(principal.expires_at),
        "device_id": principal.device_id or None,
    }


def _moment(at: float | None) -> str | None:
    return None if at is None else rfc3339(datetime.fromtimestamp(at, UTC))
