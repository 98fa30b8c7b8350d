"""The facts about a connection itself."""

from typing import Any, Final, Literal

from chatserver.kernel.wire import Answer, Id, Timestamp
from chatserver.transport.registry import FactSpec


class SessionUser(Answer):
    user_id: str
    display_name: str | None


class SessionAuth(Answer):
    """What the connection was accepted with."""

    key_id: Id | None
    scopes: list[str]
    expires_at: Timestamp | None
    device_id: str | None


class SessionReady(Answer):
    """The first fact of every namespace: all rooms are subscribed by now."""

    session_id: str
    resumed: bool
    server_time: Timestamp
    user: SessionUser
    auth: SessionAuth
    limits: dict[str, Any]
    features: dict[str, Any]


class SessionClosing(Answer):
    """Why a connection is about to be closed, and whether to come back."""

    code: str
    reason: str
    reconnect: Literal["now", "backoff", "never"]
    after_ms: int


_EACH: Final = ("/rooms", "/chat", "/notifications")
FACTS: Final = (
    FactSpec(
        "session.ready",
        _EACH,
        SessionReady,
        sequenced=False,
        summary="The namespace is connected and subscribed. To each namespace.",
    ),
    FactSpec(
        "session.closing",
        _EACH,
        SessionClosing,
        sequenced=False,
        summary="The connection is about to be closed. To one namespace of it.",
    ),
)
