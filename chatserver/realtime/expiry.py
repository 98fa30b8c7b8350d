"""The end of a credential on a socket that is open: a warning, a last chance, the close."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

from chatserver.kernel.clock import Clock, rfc3339
from chatserver.kernel.principal import Principal
from chatserver.realtime.standing import Standing

WARN_S: Final = 60.0
WARN_SHARE: Final = 0.2
# For so long after its end only `auth.refresh` is taken; then the socket is closed.
REFRESH_S: Final = 25.0
# Facts that wait for the refresh, per namespace.
MAX_HELD: Final = 1_000

Close: TypeAlias = Callable[[Standing, str, str, str], None]


def look_at(session: Standing, now: float, clock: Clock, close: Close) -> None:
    """Do what is due for one connection at `now`, in Unix seconds.

    `close` is called with (session, code, reason, reconnect).
    """
    ends = [it.expires_at for it in session.principals() if it.expires_at is not None]
    if not ends or session.in_limbo or session.ended:
        return
    end = min(ends)
    if now >= end:
        _hold(session)
        if now >= end + REFRESH_S or _is_overfull(session):
            close(session, "auth.expired", "The key has expired.", "never")
            return
    if session.expiry_told != end and now >= end - _notice(session, end):
        told = {
            "expires_at": rfc3339(datetime.fromtimestamp(end, UTC)),
            "refresh_before": rfc3339(datetime.fromtimestamp(end + REFRESH_S, UTC)),
        }
        if session.tell(clock, "auth.expiring", told):
            session.expiry_told = end


def _notice(session: Standing, end: float) -> float:
    """Give how many seconds before the end the peer is warned."""
    issued = [it.issued_at for it in session.principals() if _ends_at(it, end)]
    return max([WARN_S, *(WARN_SHARE * (end - at) for at in issued if at is not None)])


def _ends_at(principal: Principal, end: float) -> bool:
    return principal.expires_at == end


def _hold(session: Standing) -> None:
    # What happens meanwhile is not for whoever has no credential; it follows after the refresh.
    for connection in session.connections.values():
        connection.hold()


def _is_overfull(session: Standing) -> bool:
    return any(connection.held > MAX_HELD for connection in session.connections.values())
