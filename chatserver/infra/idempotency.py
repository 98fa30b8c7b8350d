"""Answers of writes that carried an `Idempotency-Key`, for 24 hours."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from sqlalchemy import Column, Index, LargeBinary, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from chatserver.infra.database import Database
from chatserver.infra.secrets import UnreadableSecretError
from chatserver.kernel.errors import (
    IdempotencyConflictError,
    IdempotencyRunningError,
    UnavailableError,
)
from chatserver.kernel.tables import time_column, uuid_column

KEPT_S: Final = 24 * 3600
# A first request that died holds its key no longer than this; a living one has 4 s.
LOCK_S: Final = 30
PAGE: Final = 500

log = structlog.get_logger()


class IdempotencyRecord(SQLModel, table=True):
    """One key of one caller. `status` is null while the first request is still running."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("ix_idempotency_created_at", "created_at"),)

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    caller: str = Field(primary_key=True, max_length=160)
    key: str = Field(primary_key=True, max_length=128)
    request_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    status: int | None = None
    # Sealed: an answer may hold a secret (login, a new master key).
    answer: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    locked_until: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # What the first request made, where that says so: written in the same transaction, and so there
    # even if nobody lived to write down the answer.
    made: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One use of a key: whose key, and a hash of everything that makes the request what it is."""

    client_id: UUID
    caller: str
    key: str
    request_hash: bytes

    @property
    def row(self) -> dict[str, Any]:
        return {"client": self.client_id, "caller": self.caller, "key": self.key}


@dataclass(frozen=True, slots=True)
class Held:
    """This request is the first with its key. `locked_until` fences off one that was taken over.

    `made`: the first died after it had made this; whoever takes over gives its answer.
    """

    use: KeyUse
    locked_until: datetime
    made: UUID | None = None


@dataclass(slots=True)
class Running:
    """The request that this task runs, if it has a key. `is_repeat`: its deed was done before."""

    held: Held
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """The first request was answered, with this."""

    status: int
    body: bytes


class Box(Protocol):
    """Seals answers: they may hold a secret (a login, a new master key)."""

    def seal(self, plain: bytes, *, bound_to: str) -> bytes: ...

    def open(self, sealed: bytes, *, bound_to: str) -> bytes: ...


# A row that is too old, or whose first request died with the same content, is taken over.
_HOLD: Final = text(
    "insert into idempotency as kept (client_id, caller, key, request_hash, locked_until)"
    " values (:client, :caller, :key, :hash, clock_timestamp() + make_interval(secs => :lock))"
    " on conflict (client_id, caller, key) do update set request_hash = excluded.request_hash,"
    "  status = null, answer = null, created_at = clock_timestamp(),"
    "  locked_until = excluded.locked_until, made = case when"
    "   kept.created_at >= clock_timestamp() - make_interval(secs => :kept) then kept.made end"
    " where kept.created_at < clock_timestamp() - make_interval(secs => :kept)"
    "  or (kept.status is null and kept.locked_until < clock_timestamp()"
    "   and kept.request_hash = excluded.request_hash)"
    " returning locked_until, made"
)
_MAKE: Final = text(
    "update idempotency set made = :made"
    " where client_id = :client and caller = :caller and key = :key"
    "  and status is null and locked_until = :fence returning made"
)
_READ: Final = text(
    "select request_hash, status, answer,"
    "  cast(1000 * extract(epoch from locked_until - clock_timestamp()) as integer) as wait_ms"
    " from idempotency where client_id = :client and caller = :caller and key = :key"
)
_KEEP: Final = text(
    "update idempotency set status = :status, answer = :answer, locked_until = null"
    " where client_id = :client and caller = :caller and key = :key"
    "  and status is null and locked_until = :fence"
)
_DROP: Final = text("delete from idempotency where client_id = :client and caller = :caller")
_ANSWERS: Final = text(
    "select caller, key, answer from idempotency where client_id = :client and answer is not null"
    " and (caller, key) > (:caller, :key) order by caller, key limit :limit for no key update"
)
_REPLACE: Final = text(
    "update idempotency set answer = :answer"
    " where client_id = :client and caller = :caller and key = :key"
)
# What was made all the same (its commit was not answered, say) is found by the next one at once.
_RELEASE: Final = text(
    "with gone as (delete from idempotency where client_id = :client and caller = :caller"
    "  and key = :key and status is null and locked_until = :fence and made is null)"
    " update idempotency set locked_until = clock_timestamp()"
    " where client_id = :client and caller = :caller and key = :key"
    "  and status is null and locked_until = :fence and made is not null"
)
RUNNING: Final[ContextVar[Running | None]] = ContextVar("request with a key", default=None)


async def remember_made(session: AsyncSession, made: UUID) -> None:
    """Tie what a request makes to its key, in the transaction that makes it; no key: nothing.

    Raises:
        IdempotencyRunningError: the request took so long that another has its key now.
    """
    running = RUNNING.get()
    if running is None:
        return
    values = running.held.use.row | {"made": made, "fence": running.held.locked_until}
    if (await session.execute(_MAKE, values)).first() is None:
        raise IdempotencyRunningError(retry_after_ms=1000)


def made_before() -> UUID | None:
    """Tell what the first request with this key made, if it died before it was answered."""
    running = RUNNING.get()
    if running is None or running.held.made is None:
        return None
    running.is_repeat = True
    return running.held.made


class IdempotencyStore:
    """Keeps the answers. Each call is one short transaction of its own."""

    def __init__(self, database: Database, box: Box) -> None:
        self._database = database
        self._box = box

    async def begin(self, use: KeyUse) -> Held | Kept:
        """Take a key, or find what was answered to its first use.

        Raises:
            IdempotencyConflictError: the key was used for something else.
            IdempotencyRunningError: the first request is not answered yet.
            UnavailableError: PostgreSQL is away.
        """
        async with self._database.transaction() as session:
            values = use.row | {"hash": use.request_hash, "lock": LOCK_S, "kept": KEPT_S}
            held = (await session.execute(_HOLD, values)).first()
            if held is not None:
                return Held(use, held.locked_until, held.made)
            found = (await session.execute(_READ, use.row)).mappings().first()
        if found is None:
            # Its holder let go of it between the two statements.
            raise IdempotencyRunningError(retry_after_ms=100)
        if found["request_hash"] != use.request_hash:
            raise IdempotencyConflictError("This key was used before, for another request.")
        if found["status"] is None:
            # The holder is nearly always done within a second; the lock is for one that died.
            raise IdempotencyRunningError(retry_after_ms=min(1000, max(100, found["wait_ms"])))
        return Kept(found["status"], self._box.open(found["answer"], bound_to=place(use)))

    async def keep(self, held: Held, status: int, body: bytes) -> None:
        """Store the answer. That it could not be stored must not undo what was answered."""
        answer = self._box.seal(body, bound_to=place(held.use))
        await self._end(_KEEP, held, {"status": status, "answer": answer})

    async def release(self, held: Held) -> None:
        """Give the key free: nothing definite came of the request."""
        await self._end(_RELEASE, held, {})

    async def forget(
        self, client_id: UUID, caller: str, quotes: Callable[[bytes], bool], instead: bytes
    ) -> int:
        """Drop a caller's keys; replace the client's other answers that `quotes` tells of.

        Their keys stay used: a retry gets the first status with `instead`, it does nothing again.
        An answer that can't be opened is replaced, too. Gives how many rows it were.
        """
        changed = 0
        async with self._database.transaction() as session:
            gone = await session.execute(_DROP, {"client": client_id, "caller": caller})
            changed += int(gone.rowcount)  # type: ignore[attr-defined]  # of a delete
        after = ("", "")
        while True:
            async with self._database.transaction() as session:
                values = {"client": client_id, "caller": after[0], "key": after[1], "limit": PAGE}
                rows = (await session.execute(_ANSWERS, values)).all()
                for row in rows:
                    use = KeyUse(client_id, row.caller, row.key, b"")
                    if self._quotes(use, row.answer, quotes):
                        answer = self._box.seal(instead, bound_to=place(use))
                        await session.execute(_REPLACE, use.row | {"answer": answer})
                        changed += 1
            if len(rows) < PAGE:
                return changed
            after = (rows[-1].caller, rows[-1].key)

    def _quotes(self, use: KeyUse, answer: bytes, quotes: Callable[[bytes], bool]) -> bool:
        try:
            return quotes(self._box.open(answer, bound_to=place(use)))
        except UnreadableSecretError:
            return True

    async def _end(self, statement: Any, held: Held, more: dict[str, Any]) -> None:  # noqa: ANN401
        try:
            async with self._database.transaction() as session:
                await session.execute(statement, held.use.row | {"fence": held.locked_until} | more)
        except UnavailableError as error:
            log.warning("idempotency_key_stays_locked", reason=repr(error.__cause__))


def place(use: KeyUse) -> str:
    return f"idempotency|{use.client_id}|{use.caller}|{use.key}"
