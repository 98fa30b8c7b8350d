"""The table of key families in memory: what PostgreSQL's statements do, one step at a time."""

import types
from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from chatserver.api_keys.errors import AuthReuseDetectedError
from chatserver.api_keys.models import StoredScopedKey, Successor
from chatserver.api_keys.policies import KeyLife
from chatserver.api_keys.rotation import Rotation, seal
from chatserver.infra.secrets import Key, KeyHasher, SecretBox, new_scoped_key, parse_key
from chatserver.kernel.errors import DomainError
from chatserver.kernel.ids import uuid7
from tests.support.key_life import NODES, Result

Value = TypeVar("Value")
_PERSON = UUID(int=1)


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Let somebody else go first, where the real thing waits for PostgreSQL."""
    yield


def drive(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine alone, without a loop."""
    while True:
        try:
            work.send(None)
        except StopIteration as done:
            value: Value = done.value
            return value


@dataclass
class Row:
    kid: str
    device: str
    rotation: str
    gen: int
    cur: Successor
    pend: Successor | None = None
    cur_ct: bytes | None = None
    grace_until: float = 0.0
    status: str = "active"
    retired: dict[int, tuple[bytes, UUID, str, float, UUID, str]] = field(default_factory=dict)


class Table:
    """A backend of the machine: `Rotation` three times over one table."""

    def __init__(self) -> None:
        self.life = KeyLife()
        self.grace_s = self.life.grace.total_seconds()
        self.now = 0.0
        self.rows: dict[str, Row] = {}
        self.hasher = KeyHasher("p" * 32)
        self.box = SecretBox.from_text(["seal"])
        self.nodes = [
            Rotation(
                families=self,
                hasher=self.hasher,
                box=self.box,
                life=self.life,
                alarm=self._alarm,
            )
            for _ in range(NODES)
        ]

    async def find(self, kid: str, gen: int) -> StoredScopedKey | None:
        await turn()
        row = self.rows.get(kid)
        if row is None:
            return None
        mac, old_id, reason, until, by_id, door = row.retired.get(
            gen, (None, None, "replaced", self.now, None, None)
        )
        return StoredScopedKey(
            kid=kid,
            client_id=_PERSON,
            client_slug="acme",
            is_client_active=True,
            origins=(),
            user_id=_PERSON,
            external_id="alice",
            display_name=None,
            device_id=row.device,
            scopes=("chat:read",),
            status=row.status,
            is_expired=False,
            ends_in_s=1e9,
            expires_at=2e9,
            rotation=row.rotation,
            cur_gen=row.gen,
            cur_id=row.cur.key_id,
            cur_mac=bytes(row.cur.mac),
            cur_ct=row.cur_ct,
            pend_id=row.pend.key_id if row.pend else None,
            pend_mac=bytes(row.pend.mac) if row.pend else None,
            pend_ct=row.pend.ciphertext if row.pend else None,
            old_id=old_id,
            old_mac=mac,
            old_ends_in_s=until - self.now,
            old_reason=reason,
            old_by_id=by_id,
            old_by_door=door,
        )

    async def mint(self, kid: str, *, cur_mac: bytes, successor: Successor) -> bool:
        await turn()
        row = self.rows[kid]
        if row.status != "active" or row.pend is not None or row.cur.mac != cur_mac:
            return False
        row.pend = successor
        return True

    async def activate(
        self, kid: str, *, pend_mac: bytes, door: str, successor: Successor | None, life: KeyLife
    ) -> bool:
        await turn()
        row = self.rows[kid]
        if row.status != "active" or row.pend is None or row.pend.mac != pend_mac:
            return False
        self._retire(row, row.gen, row.cur, "rotated", row.pend.key_id, door)
        row.gen += 1
        row.cur, row.cur_ct, row.pend = row.pend, row.pend.ciphertext, successor
        row.grace_until = self.now + self.grace_s
        row.retired = {
            gen: it for gen, it in row.retired.items() if gen >= row.gen - life.retired_kept
        }
        return True

    def _retire(
        self, row: Row, gen: int, old: Successor, reason: str, by_id: UUID, door: str
    ) -> None:
        assert gen not in row.retired, "a generation is given out once"
        until = self.now + self.grace_s
        row.retired[gen] = (bytes(old.mac), old.key_id, reason, until, by_id, door)

    async def _alarm(self, stored: StoredScopedKey, reuse: AuthReuseDetectedError) -> None:
        await turn()
        row = self.rows[stored.kid]
        row.status, row.cur_ct = "revoked", None

    def login(self, device: str, *, explicit: bool, replace: bool) -> str:
        rotation = "explicit" if explicit else "always"
        row = next(
            (it for it in self.rows.values() if it.device == device and it.status == "active"), None
        )
        if row is not None and replace:
            row.status, row = "revoked", None
        if row is None:
            key = new_scoped_key()
            cur = Successor(key_id=uuid7(), mac=self.hasher.mac(key), ciphertext=b"")
            self.rows[key.kid] = Row(key.kid, device, rotation, key.gen, cur)
            return key.text
        key = new_scoped_key(kid=row.kid, gen=row.gen + (1 if row.pend is None else 2))
        cur = Successor(key_id=uuid7(), mac=self.hasher.mac(key), ciphertext=b"")
        self._retire(row, row.gen, row.cur, "replaced", cur.key_id, "login")
        if row.pend is not None:
            self._retire(row, row.gen + 1, row.pend, "replaced", cur.key_id, "login")
        row.gen, row.cur, row.pend, row.rotation = key.gen, cur, None, rotation
        row.cur_ct, row.grace_until = seal(self.box, key), self.now + self.grace_s
        return key.text

    def connect(self, node: int, key: str) -> Result:
        return drive(self._connect(node, key))

    async def _connect(self, node: int, key: str) -> Result:
        parsed = _parsed(key)
        try:
            return (await self.nodes[node].connect(parsed))[1]
        except DomainError as error:
            return error

    def rest(self, node: int, key: str) -> DomainError | None:
        try:
            drive(self.nodes[node].check(_parsed(key)))
        except DomainError as error:
            return error
        return None

    def confirm(self, node: int, kid: str, key_id: UUID) -> bool:
        return drive(self.nodes[node].confirm(kid, key_id))

    def race(self, keys: Sequence[str], schedule: Sequence[int]) -> list[Result]:
        works = {n: self._connect(n % NODES, key) for n, key in enumerate(keys)}
        results: dict[int, Result] = {}
        turns = [*schedule, *(list(range(len(keys))) * 20)]
        for whose in turns:
            number = whose % len(keys)
            if number in results:
                continue
            try:
                works[number].send(None)
            except StopIteration as done:
                results[number] = done.value
        assert len(results) == len(keys)
        return list(results.values())

    def advance(self, seconds: int) -> None:
        self.now += seconds

    def note_use(self) -> None:
        for row in self.rows.values():
            if row.grace_until <= self.now:
                row.cur_ct = None

    def close(self) -> None:
        self.rows.clear()


def _parsed(key: str) -> Key:
    parsed = parse_key(key)
    assert parsed is not None
    return parsed
