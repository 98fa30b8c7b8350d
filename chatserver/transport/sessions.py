"""The facts about a connection itself."""

from typing import Any, Final, Literal

from pydantic import Field

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


class AuthRotated(Answer):
    """The key to use from now on. Keep it before using it; it is shown on this connection once."""

    key: str = Field(repr=False)
    key_id: Id
    expires_at: Timestamp


class AuthExpiring(Answer):
    """When the credential ends, and until when `auth.refresh` is still taken on this connection."""

    expires_at: Timestamp
    refresh_before: Timestamp


class ReuseDetected(Answer):
    """Whose key came back, and by which door its successor had been taken.

    `policy` is the client's `key_reuse`: with `revoke_family` the device's keys were ended.
    """

    user_id: str
    policy: str
    device_id: str
    key_id: Id
    successor_id: Id | None
    door: str | None


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
    FactSpec(
        "auth.rotated",
        _EACH,
        AuthRotated,
        sequenced=False,
        summary="The key that follows the one presented. To one namespace, once per connection.",
    ),
    FactSpec(
        "auth.expiring",
        _EACH,
        AuthExpiring,
        sequenced=False,
        summary="The credential ends soon: send `auth.refresh`. To one namespace.",
    ),
    FactSpec(
        "auth.reuse_detected",
        ("/chat",),
        ReuseDetected,
        sequenced=False,
        summary="A used-up key of one of your devices came back: somebody may have a copy.",
    ),
)
