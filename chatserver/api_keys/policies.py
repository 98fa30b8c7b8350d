"""What a presented key is worth. Pure: PostgreSQL's clock has already judged every time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from chatserver.api_keys.errors import (
    LOGIN,
    AuthExpiredError,
    AuthInvalidError,
    AuthReuseDetectedError,
    AuthRevokedError,
)
from chatserver.api_keys.models import StoredScopedKey
from chatserver.clients.schemas import REJECT_AND_ALERT
from chatserver.kernel.principal import Caller, Principal, Scope

Matches: TypeAlias = Callable[[bytes, bytes | None], bool]

# Why a generation is over: its successor came into use, or a login put another in its place.
ROTATED: Final = "rotated"
# For how long after its end a credential may still connect to be refreshed, and to nothing else.
LIMBO_S: Final = 600.0

_ONLY_REFUSED: Final = "This key was used up by its successor. Use that one, or log in."
_SCOPES: Final = {scope.value: scope for scope in Scope}


class Standing(StrEnum):
    """Which generation of its family a good key is."""

    CURRENT = "current"
    PENDING = "pending"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLife:
    """How long scoped keys live, and how many devices of a user may have one."""

    idle: timedelta = timedelta(days=30)
    absolute: timedelta = timedelta(days=90)
    # For how long a key that was followed by another still works.
    grace: timedelta = timedelta(seconds=120)
    families: int = 20
    retired_kept: int = 64


@dataclass(frozen=True, slots=True)
class Accepted:
    """A good key: who presents it, and how many seconds that may be remembered."""

    principal: Principal
    for_s: float
    standing: Standing = Standing.CURRENT
    # It has expired a short while ago: good for nothing but being replaced by another.
    in_limbo: bool = False


def judge(
    mac: bytes, stored: StoredScopedKey | None, matches: Matches, *, limbo_s: float = 0.0
) -> Accepted:
    """Tell who presents the scoped key with this MAC.

    A key that expired less than `limbo_s` seconds ago is accepted `in_limbo`.

    An unknown key and a wrong secret cost the same comparisons and get the same answer. Only
    whoever presents a right secret learns that the key was revoked or has expired.

    Raises:
        AuthInvalidError: unknown key or wrong secret.
        AuthRevokedError: the key, the device, the user or the application was cut off, or the key
            was followed by another and its grace is over.
        AuthExpiredError: it was not used for too long, or is too old.
        AuthReuseDetectedError: its successor retired it, and its grace is over.
    """
    is_current = matches(mac, stored.cur_mac if stored else None)
    is_pending = matches(mac, stored.pend_mac if stored else None)
    is_old = matches(mac, stored.old_mac if stored else None)
    if stored is None:
        raise AuthInvalidError(action=LOGIN)
    ends_in_s = stored.ends_in_s
    if is_current:
        standing, key_id = Standing.CURRENT, stored.cur_id
    elif is_pending and stored.pend_id is not None:
        standing, key_id = Standing.PENDING, stored.pend_id
    elif is_old and stored.old_id is not None:
        standing, key_id = Standing.RETIRED, stored.old_id
        ends_in_s = min(ends_in_s, stored.old_ends_in_s)
    else:
        raise AuthInvalidError(action=LOGIN)
    _require_unrevoked(stored)
    if stored.status != "active" or stored.is_expired:
        late = standing is Standing.RETIRED or max(-stored.ends_in_s, 0.0) >= limbo_s
        if stored.status != "active" or late:
            raise AuthExpiredError(action=LOGIN)
        return Accepted(_principal(stored, key_id), 0.0, standing, in_limbo=True)
    if ends_in_s <= 0:
        raise _run_out(stored)
    return Accepted(_principal(stored, key_id), ends_in_s, standing)


def _require_unrevoked(stored: StoredScopedKey) -> None:
    if not stored.is_client_active:
        raise AuthRevokedError
    if stored.status == "revoked":
        raise AuthRevokedError(action=LOGIN)


def _run_out(stored: StoredScopedKey) -> AuthReuseDetectedError | AuthRevokedError:
    """Tell why a retired generation is refused: theft, or only a later login."""
    if stored.old_reason == ROTATED:
        by = None if stored.old_by_id is None else str(stored.old_by_id)
        return AuthReuseDetectedError(
            _ONLY_REFUSED if stored.reuse_policy == REJECT_AND_ALERT else "",
            key_id=by,
            door=stored.old_by_door,
            action=LOGIN,
        )
    return AuthRevokedError("This key was replaced by a later login.", action=LOGIN)


def _principal(stored: StoredScopedKey, key_id: UUID) -> Principal:
    return Principal(
        caller=Caller.USER,
        client_id=stored.client_id,
        client_slug=stored.client_slug,
        user_id=stored.user_id,
        external_id=stored.external_id,
        display_name=stored.display_name,
        key_id=key_id,
        kid=stored.kid,
        device_id=stored.device_id,
        # A scope that this version doesn't know gives nothing.
        scopes=frozenset(_SCOPES[name] for name in stored.scopes if name in _SCOPES),
        issued_at=stored.issued_at,
        expires_at=stored.expires_at,
        origins=stored.origins,
    )
