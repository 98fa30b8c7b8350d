"""Rotation on connect: every socket that comes with a key is handed the key that follows it.

A generation is retired only when its successor was used to connect, or confirmed: whoever never got
the answer goes on with what there is. Two generations work, and older ones for their grace.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from chatserver.api_keys.errors import AuthReuseDetectedError
from chatserver.api_keys.models import StoredScopedKey, Successor
from chatserver.api_keys.policies import LIMBO_S, Accepted, KeyLife, Standing, judge
from chatserver.api_keys.repository import KeyFamilyRepository
from chatserver.clients.schemas import REJECT_AND_ALERT
from chatserver.infra.secrets import (
    Key,
    KeyHasher,
    SecretBox,
    UnreadableSecretError,
    new_scoped_key,
)
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.events import SYSTEM, Fact
from chatserver.kernel.ids import uuid7
from chatserver.realtime.ports import Closing

log = structlog.get_logger()

SOCKET: Final = "socket"
CONFIRM: Final = "confirm"
# Each try fails only because another node rotated the same family in between.
_TRIES: Final = 5


class Families(Protocol):
    """The families as `ScopedKeyLookup` has them: each call is one statement."""

    async def find(self, kid: str, gen: int) -> StoredScopedKey | None: ...

    async def mint(self, kid: str, *, cur_mac: bytes, successor: Successor) -> bool: ...

    async def activate(
        self, kid: str, *, pend_mac: bytes, door: str, successor: Successor | None, life: KeyLife
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class HandOut:
    """A key for its holder, as `auth.rotated` says it."""

    key: str = field(repr=False)
    key_id: UUID
    expires_at: float

    def as_fact(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "key_id": str(self.key_id),
            "expires_at": rfc3339(datetime.fromtimestamp(self.expires_at, UTC)),
        }


class Rotation:
    """The state machine. `alarm` is told of every key that came back after its grace."""

    def __init__(
        self,
        *,
        families: Families,
        hasher: KeyHasher,
        box: SecretBox,
        life: KeyLife,
        alarm: Callable[[StoredScopedKey, AuthReuseDetectedError], Awaitable[None]],
    ) -> None:
        self._families = families
        self._hasher = hasher
        self._box = box
        self._life = life
        self._alarm = alarm

    async def check(self, key: Key, *, limbo_s: float = 0.0) -> tuple[StoredScopedKey, Accepted]:
        """Tell who presents a key, and change nothing, unless the key is a stolen one.

        Raises:
            DomainError: as `judge` says; `unavailable`.
        """
        stored = await self._families.find(key.kid, key.gen)
        try:
            accepted = judge(self._hasher.mac(key), stored, self._hasher.matches, limbo_s=limbo_s)
        except AuthReuseDetectedError as reuse:
            if stored is not None:
                await self._alarm(stored, reuse)
            raise
        assert stored is not None  # noqa: S101 - an unknown key is not accepted
        return stored, accepted

    async def connect(self, key: Key) -> tuple[Accepted, HandOut | None]:
        """Take a key that a socket presents; give who it is and the key to use from now on.

        Raises:
            DomainError: as `check`.
        """
        tries = 0
        while True:
            stored, accepted = await self.check(key, limbo_s=LIMBO_S)
            tries += 1
            if accepted.in_limbo or stored.rotation != "always" or tries > _TRIES:
                return accepted, None
            done, given = await self._advance(stored, accepted)
            if done:
                return accepted, given

    async def _advance(
        self, stored: StoredScopedKey, accepted: Accepted
    ) -> tuple[bool, HandOut | None]:
        if accepted.standing is Standing.RETIRED:
            return True, self._opened(stored, stored.cur_gen, stored.cur_id, stored.cur_ct)
        if accepted.standing is Standing.PENDING:
            assert stored.pend_mac is not None  # noqa: S101 - it was compared with
            successor, given = self._minted(stored, stored.cur_gen + 2)
            done = await self._families.activate(
                stored.kid,
                pend_mac=stored.pend_mac,
                door=SOCKET,
                successor=successor,
                life=self._life,
            )
            return done, given
        if stored.pend_id is not None:
            return True, self._opened(stored, stored.cur_gen + 1, stored.pend_id, stored.pend_ct)
        successor, given = self._minted(stored, stored.cur_gen + 1)
        done = await self._families.mint(stored.kid, cur_mac=stored.cur_mac, successor=successor)
        return done, given

    async def confirm(self, kid: str, key_id: UUID) -> bool:
        """Let a pending key come into use, as if a socket had connected with it.

        Returns whether `key_id` is the key in use by now.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        for _ in range(_TRIES):
            stored = await self._families.find(kid, 0)
            if stored is None or stored.status != "active":
                return False
            if stored.cur_id == key_id:
                return True
            if stored.pend_id != key_id or stored.pend_mac is None:
                return False
            await self._families.activate(
                kid, pend_mac=stored.pend_mac, door=CONFIRM, successor=None, life=self._life
            )
        return False

    def _minted(self, stored: StoredScopedKey, gen: int) -> tuple[Successor, HandOut]:
        key = new_scoped_key(kid=stored.kid, gen=gen)
        key_id = uuid7()
        sealed = seal(self._box, key)
        successor = Successor(key_id=key_id, mac=self._hasher.mac(key), ciphertext=sealed)
        return successor, HandOut(key.text, key_id, stored.expires_at)

    def _opened(
        self, stored: StoredScopedKey, gen: int, key_id: UUID, sealed: bytes | None
    ) -> HandOut | None:
        if sealed is None:
            return None
        try:
            text = self._box.open(sealed, bound_to=place(stored.kid, gen)).decode()
        except UnreadableSecretError:
            # The presented key goes on working: better an old key than nobody let in.
            log.error("pending_key_unreadable", kid=stored.kid)  # noqa: TRY400 - says all there is
            return None
        return HandOut(text, key_id, stored.expires_at)


def seal(box: SecretBox, key: Key) -> bytes:
    """Seal a key's text for its place; nowhere else does it open."""
    return box.seal(key.text.encode(), bound_to=place(key.kid, key.gen))


def place(kid: str, gen: int) -> str:
    return f"scoped key|{kid}|{gen}"


class ReuseAlarm:
    """Ends a family of which a retired key was presented, once, and tells everyone concerned.

    With `key_reuse: reject_and_alert` the family goes on, and it is told once an hour.
    """

    def __init__(
        self,
        *,
        families: KeyFamilyRepository,
        recorder: Recorder,
        kick: Callable[[Closing], None],
    ) -> None:
        self._families = families
        self._recorder = recorder
        self._kick = kick

    async def raise_alarm(self, stored: StoredScopedKey, reuse: AuthReuseDetectedError) -> None:
        ends_keys = stored.reuse_policy != REJECT_AND_ALERT
        if not await self._is_news(stored, ends_keys=ends_keys):
            return
        log.warning("key_reuse_detected", client=stored.client_slug, kid=stored.kid)
        said = {
            "user_id": stored.external_id,
            "policy": stored.reuse_policy,
            "device_id": stored.device_id,
            "key_id": str(stored.old_id),
            "successor_id": reuse.details["key_id"],
            "door": reuse.details["door"],
        }
        self._recorder.audit(
            stored.client_id, SYSTEM, "user_key.reuse", f"user:{stored.external_id}", **said
        )
        self._recorder.record(
            Fact(
                type="auth.reuse_detected",
                client_id=stored.client_id,
                room_id=None,
                actor=SYSTEM,
                data=said,
                sequenced=False,
                audience=(stored.user_id,),
            )
        )
        if ends_keys:
            closing = Closing(code=reuse.code, reason=reuse.title, kid=stored.kid)
            self._recorder.after_commit(lambda: self._kick(closing))

    async def _is_news(self, stored: StoredScopedKey, *, ends_keys: bool) -> bool:
        if ends_keys:
            return await self._families.revoke_kid(stored.client_id, stored.kid, why="reuse")
        assert stored.old_id is not None  # noqa: S101 - it is what was presented
        return await self._families.note_alarm(stored.client_id, stored.kid, stored.old_id)
