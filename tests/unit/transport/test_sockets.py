"""The Socket.IO door: whatever is sent, an answer in the contract's shape comes back."""

import dataclasses
from typing import Any
from uuid import uuid4

import orjson
import pytest

from chatserver.kernel.errors import DomainError, ErrorKind
from chatserver.kernel.principal import Caller, Principal, Scope
from chatserver.kernel.wire import Answer, Request
from chatserver.realtime.ports import Accepted, Handshake, Offence, Refused
from chatserver.transport.registry import USER, Registry, command
from chatserver.transport.sockets import SocketDoor

ANN = Principal(
    caller=Caller.USER,
    client_id=uuid4(),
    user_id=uuid4(),
    external_id="ann",
    display_name="Ann",
    key_id=uuid4(),
    device_id="phone",
    scopes=frozenset({Scope.CHAT_WRITE, Scope.CHAT_READ}),
    expires_at=1_800_000_000.25,
)
HANDSHAKE = Handshake({}, "127.0.0.1", None)


class WrongKeyError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.invalid"
    title = "Wrong key."


class OverError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.expired"
    title = "Over."


class Say(Request):
    text: str


class Said(Answer):
    text: str


class Commands:
    @command("say", Say, Said, scope=Scope.CHAT_WRITE, callers=USER)
    async def say(self, principal: Principal, request: Say) -> Said:
        """Say something."""
        return Said(text=f"{principal.name}: {request.text}")

    @command("crash", Say, Said, callers=USER)
    async def crash(self, principal: Principal, request: Say) -> Said:
        """Crash."""
        raise RuntimeError(f"secret {request.text}")


def door(found: Principal | Exception = ANN, seen: list[Any] | None = None) -> SocketDoor:
    async def authenticate(
        handshake: Handshake, token: object, device_id: str | None, client: str | None
    ) -> Accepted:
        if seen is not None:
            seen.append((token, device_id, client))
        if isinstance(found, Exception):
            raise found
        return Accepted(principal=found)

    registry = Registry()
    registry.add(Commands(), namespaces=("/chat",))
    return SocketDoor(
        registry=registry,
        authenticate=authenticate,
        foreign=WrongKeyError,
        expired=OverError,
        limits=lambda _: {"command_bytes": 131072},
        features={"watch": True},
        scopes={"/chat": Scope.CHAT_READ, "/notifications": Scope.NOTIFICATIONS_READ},
    )


async def ask(
    event: str, payload: object, namespace: str = "/chat", principal: Principal = ANN
) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(
        bytes(await door().answer(principal, namespace, event, payload))
    )
    return answer


async def test_a_command_is_run_and_answered() -> None:
    assert await ask("say", {"text": "hé"}) == {"ok": True, "data": {"text": "ann: hé"}}


@pytest.mark.parametrize(
    ("event", "payload", "namespace", "code"),
    [
        ("say", {}, "/chat", "payload.invalid"),
        ("say", {"text": "x", "more": 1}, "/chat", "payload.invalid"),
        ("say", {"text": "\0"}, "/chat", "payload.invalid"),
        ("say", {"text": "\ud800"}, "/chat", "payload.invalid"),
        ("say", {"text": float("nan")}, "/chat", "payload.invalid"),
        ("say", {"text": 10**98}, "/chat", "payload.invalid"),
        ("say", {"text": b"bytes"}, "/chat", "payload.invalid"),
        ("say", {"text": "x"}, "/rooms", "event.unknown"),
        ("nothing", {}, "/chat", "event.unknown"),
        ("crash", {"text": "x"}, "/chat", "internal.error"),
    ],
)
async def test_every_failure_is_an_answer(
    event: str, payload: object, namespace: str, code: str
) -> None:
    answer = await ask(event, payload, namespace)
    assert answer["ok"] is False
    error = answer["error"]
    assert error["code"] == code
    assert set(error) == {
        "code", "message", "status", "retryable", "retry_after_ms", "details", "trace_id",
    }  # fmt: skip
    assert "secret" not in str(answer)


async def test_each_command_has_its_own_trace() -> None:
    traces = {(await ask("nothing", {}))["error"]["trace_id"] for _ in range(5)}
    assert len(traces) == 5


async def test_a_connect_shows_what_auth_says() -> None:
    seen: list[Any] = []
    found = door(seen=seen)
    auth = {"token": "t", "device_id": "d", "client": "c", "recovery": True}
    assert (await found.accept("/chat", HANDSHAKE, auth, None)).principal is ANN
    empty: tuple[object, ...] = (None, {}, [], "text")
    for nothing in empty:
        await found.accept("/chat", HANDSHAKE, nothing, None)
    assert seen == [("t", "d", "c")] + [(None, None, None)] * 4


@pytest.mark.parametrize(
    ("fault", "code"),
    [(WrongKeyError(), "auth.invalid"), (RuntimeError("secret"), "internal.error")],
)
async def test_any_fault_in_a_connect_is_a_refusal(fault: Exception, code: str) -> None:
    with pytest.raises(Refused) as refused:
        await door(fault).accept("/chat", HANDSHAKE, {"token": "t"}, None)
    assert refused.value.error["code"] == code
    assert "secret" not in str(refused.value.error)


@pytest.mark.parametrize("auth", [{"device_id": 1}, {"token": "\0"}, {"token": "t", "client": []}])
async def test_an_auth_that_is_no_text_is_refused_by_name(auth: object) -> None:
    with pytest.raises(Refused) as refused:
        await door().accept("/chat", HANDSHAKE, auth, None)
    assert refused.value.error["code"] == "payload.invalid"
    assert refused.value.error["details"]


async def test_a_second_key_must_be_the_same_persons() -> None:
    ben = Principal(caller=Caller.USER, client_id=ANN.client_id, user_id=uuid4())
    with pytest.raises(Refused) as refused:
        await door(ben).accept("/chat", HANDSHAKE, {"token": "t"}, ANN)
    assert refused.value.error["code"] == "auth.invalid"
    accepted = await door(ANN).accept("/chat", HANDSHAKE, {"token": "t"}, ANN)
    assert accepted.principal is ANN


def test_the_welcome_says_who_one_is_and_what_one_may() -> None:
    welcome = orjson.loads(orjson.dumps(door().welcome(ANN, "sid")))
    assert welcome.pop("server_time").endswith("Z")
    assert welcome == {
        "session_id": "sid",
        "resumed": False,
        "user": {"user_id": "ann", "display_name": "Ann"},
        "auth": {
            "key_id": str(ANN.key_id),
            "scopes": ["chat:read", "chat:write"],
            "expires_at": "2027-01-15T08:00:00.250Z",
            "device_id": "phone",
        },
        "limits": {"command_bytes": 131072},
        "features": {"watch": True},
    }
    assert str(ANN.user_id) not in str(welcome)


async def test_a_namespace_takes_the_scope_to_read_it() -> None:
    with pytest.raises(Refused) as refused:
        await door().accept("/notifications", HANDSHAKE, {"token": "t"}, None)
    assert refused.value.error["code"] == "auth.scope_missing"


async def test_a_credential_whose_time_is_over_is_only_refreshed() -> None:
    over = dataclasses.replace(ANN, expires_at=1_000_000.0)
    answer = await ask("say", {"text": "hello"}, principal=over)
    assert answer["error"]["code"] == "auth.expired"
    # There is no such command here; what matters is that it was looked for.
    assert (await ask("auth.refresh", {}, principal=over))["error"]["code"] == "event.unknown"


async def test_an_answer_tells_offences_from_other_refusals() -> None:
    assert isinstance(await door().answer(ANN, "/chat", "say", {"texts": "hello"}), Offence)
    assert isinstance(await door().answer(ANN, "/chat", "nothing", {}), Offence)
    assert not isinstance(await door().answer(ANN, "/chat", "crash", {"text": "x"}), Offence)
