"""How users come to their keys, and how they lose them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from chatserver.api_keys.models import KeyFamily
from chatserver.api_keys.policies import KeyLife
from chatserver.api_keys.repository import KeyFamilyRepository
from chatserver.api_keys.rotation import seal
from chatserver.api_keys.schemas import (
    KeyList,
    KeyOf,
    KeyOut,
    KeysOf,
    LoggedIn,
    Login,
    Me,
    Revoked,
)
from chatserver.clients.errors import KeyNotFoundError
from chatserver.clients.schemas import Nothing
from chatserver.infra.secrets import Key, KeyHasher, SecretBox, new_scoped_key
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import ALL_SCOPES, Principal
from chatserver.kernel.wire import Empty
from chatserver.realtime.ports import Closing
from chatserver.users.models import User
from chatserver.users.service import UserService, shown


class ApiKeyService:
    """Users' scoped keys: one family per device, one generation per login.

    `kick` closes sockets and clears caches on every node, once the change is true.
    """

    def __init__(
        self,
        *,
        families: KeyFamilyRepository,
        users: UserService,
        hasher: KeyHasher,
        box: SecretBox,
        recorder: Recorder,
        kick: Callable[[Closing], None],
        life: KeyLife,
    ) -> None:
        self._families = families
        self._users = users
        self._hasher = hasher
        self._box = box
        self._recorder = recorder
        self._kick = kick
        self._life = life

    async def login(self, principal: Principal, command: Login) -> LoggedIn:
        # The user's row is the lock: logins of one person come one after the other.
        user = await self._users.entered(principal.client_id, command.external_id)
        family = await self._family_to_continue(user, command)
        key = new_scoped_key() if family is None else _next_key(family)
        key_id = uuid7()
        values: dict[str, Any] = {
            "issued_by": principal.kid or None,
            "scopes": sorted(command.scopes or ALL_SCOPES),
            "rotation": command.rotation,
            "cur_gen": key.gen,
            "cur_id": key_id,
            "cur_mac": self._hasher.mac(key),
            "pepper_id": self._hasher.pepper_id,
        }
        seconds = command.ttl_s
        absolute = self._life.absolute if seconds is None else timedelta(seconds=seconds)
        if family is None:
            device_id = command.device_id or str(uuid7())
            expires_at = await self._begin(user, device_id, key.kid, values, absolute)
        else:
            device_id = family.device_id
            # Sockets that still come with an older key are handed this one.
            values["cur_ct"] = seal(self._box, key)
            expires_at = await self._families.follow(
                family, values, life=self._life, absolute=absolute
            )
        return LoggedIn(
            key=key.text,
            key_id=key_id,
            device_id=device_id,
            expires_at=expires_at,
            user=shown(user),
        )

    async def _family_to_continue(self, user: User, command: Login) -> KeyFamily | None:
        if command.device_id is None:
            return None
        family = await self._families.find_device(user.client_id, user.id, command.device_id)
        if family is None or not command.replace:
            return family
        # The device gets a new family: whoever knows the old kid finds it dead, also on a node
        # that hears nothing of this.
        reason = "The key was replaced by a login."
        await self._end(user, why="replaced", reason=reason, kid=family.kid)
        return None

    async def _begin(
        self, user: User, device_id: str, kid: str, values: dict[str, Any], absolute: timedelta
    ) -> datetime:
        place = {
            "kid": kid,
            "client_id": user.client_id,
            "user_id": user.id,
            "device_id": device_id,
            "status": "active",
            "epoch": 0,
        }
        expires_at = await self._families.add(values | place, life=self._life, absolute=absolute)
        evicted = await self._families.evict(
            user.client_id, user.id, but=kid, others=self._life.families - 1
        )
        for other in evicted:
            self._close(Closing(code="auth.revoked", reason="Too many devices.", kid=other))
        return expires_at

    async def revoke(self, principal: Principal, command: KeysOf) -> Revoked:
        user = await self._users.locked(principal, command.external_id)
        await self._users.revoke(user)
        ended = await self._families.revoke(user.client_id, user.id, why="revoked")
        self._note(principal, "user.revoke", user, keys_ended=len(ended))
        # By user, not by key: sockets that came with another kind of credential close, too.
        reason = "All keys of the user were revoked."
        self._close(Closing(code="auth.revoked", reason=reason, user_id=user.id))
        return Revoked(user_id=user.external_id, revoked=len(ended))

    async def list(self, principal: Principal, command: KeyList) -> Page[KeyOut]:
        user_id = await self._users.visible_id(principal, command.external_id)
        found = await self._families.list_live(principal.client_id, user_id, command)
        counted = await self._families.count_live(principal.client_id, user_id)
        return Page[KeyOut].of([_shown(family) for family in found], command, counted)

    async def delete(self, principal: Principal, command: KeyOf) -> Empty:
        user = await self._users.locked(principal, command.external_id)
        kid = await self._families.find_kid(user.client_id, user.id, command.id)
        if kid is None:
            raise KeyNotFoundError
        await self._end(user, why="deleted", reason="The key was deleted.", kid=kid)
        self._note(principal, "user_key.delete", user, key_id=command.id)
        return Empty()

    def _note(
        self,
        principal: Principal,
        action: str,
        user: User,
        **details: Any,  # noqa: ANN401 - JSON
    ) -> None:
        subject = f"user:{user.external_id}"
        self._recorder.audit(user.client_id, principal, action, subject, **details)

    async def me(self, principal: Principal, _: Nothing) -> Me:
        profile = await self._users.own(principal)
        if not principal.kid:
            return Me(**dict(profile), key=None)
        family = await self._families.find(principal.client_id, principal.kid)
        if family is None:
            raise KeyNotFoundError
        key = _shown(family).model_copy(update={"key_id": principal.key_id})
        return Me(**dict(profile), key=key)

    async def _end(self, user: User, *, why: str, reason: str, kid: str) -> None:
        for ended in await self._families.revoke(user.client_id, user.id, why=why, kid=kid):
            self._close(Closing(code="auth.revoked", reason=reason, kid=ended))

    def _close(self, closing: Closing) -> None:
        self._recorder.after_commit(partial(self._kick, closing))


def _next_key(family: KeyFamily) -> Key:
    # A pending generation has its number already.
    later = 1 if family.pend_mac is None else 2
    return new_scoped_key(kid=family.kid, gen=family.cur_gen + later)


def _shown(family: KeyFamily) -> KeyOut:
    return KeyOut(
        key_id=family.cur_id,
        device_id=family.device_id,
        scopes=family.scopes,
        rotation="explicit" if family.rotation == "explicit" else "always",
        created_at=family.created_at,
        last_seen_at=family.last_seen_at,
        expires_at=family.abs_expires_at,
        idle_expires_at=family.idle_expires_at,
    )
