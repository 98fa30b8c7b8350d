"""What a presented key is worth. Pure: PostgreSQL's clock has already judged every time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias
from uuid import UUID

from chatserver.api_keys.errors import LOGIN, AuthExpiredError, AuthInvalidError, AuthRevokedError
from chatserver.api_keys.models import StoredScopedKey
from chatserver.kernel.principal import Caller, Principal, Scope

Matches: TypeAlias = Callable[[bytes, bytes | None], bool]

_SCOPES: Final = {scope.value: scope for scope in Scope}


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


def judge(mac: bytes, stored: StoredScopedKey | None, matches: Matches) -> Accepted:
    """Tell who presents the scoped key with this MAC.

    An unknown key and a wrong secret cost the same comparisons and get the same answer. Only
    whoever presents a right secret learns that the key was revoked or has expired.

    Raises:
        AuthInvalidError: unknown key or wrong secret.
        AuthRevokedError: the key, the device, the user or the application was cut off, or the key
            was followed by another and its grace is over.
        AuthExpiredError: it was not used for too long, or is too old.
    """
    is_current = matches(mac, stored.cur_mac if stored else None)
    is_pending = matches(mac, stored.pend_mac if stored else None)
    is_old = matches(mac, stored.old_mac if stored else None)
    if stored is None:
        raise AuthInvalidError(action=LOGIN)
    if is_current:
        key_id, ends_in_s = stored.cur_id, stored.ends_in_s
    elif is_pending and stored.pend_id is not None:
        key_id, ends_in_s = stored.pend_id, stored.ends_in_s
    elif is_old and stored.old_id is not None:
        key_id, ends_in_s = stored.old_id, min(stored.ends_in_s, stored.old_ends_in_s)
    else:
        raise AuthInvalidError(action=LOGIN)
    if not stored.is_client_active:
        raise AuthRevokedError
    if stored.status == "revoked":
        raise AuthRevokedError(action=LOGIN)
    if stored.status != "active" or stored.is_expired:
        raise AuthExpiredError(action=LOGIN)
    if ends_in_s <= 0:
        raise AuthRevokedError("This key was replaced by a later login.", action=LOGIN)
    return Accepted(_principal(stored, key_id), ends_in_s)


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
        expires_at=stored.expires_at,
        origins=stored.origins,
    )
