"""Who is there: per user over all devices and nodes, in Redis, where all of it may be lost.

Each connection is an entry with an end; its node moves the end on. A user is there as long as one
entry has not ended. Nodes tell each other only that something changed, and read what.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

import structlog

from chatserver.kernel.ids import uuid7
from chatserver.kernel.tasks import end
from chatserver.realtime.hub import Connection
from chatserver.realtime.store import Store

log = structlog.get_logger(__name__)

TICK_S: Final = 1.0
REFRESH_MS: Final = 25_000
LIFE_MS: Final = 60_000
GRACE_MS: Final = 15_000
# When somebody was last seen is kept for so long.
SEEN_S: Final = 30 * 86_400
CHANGES_MS: Final = 120_000
SLICE: Final = 500
MAX_UNSENT: Final = 20_000

ONLINE: Final = "online"
AWAY: Final = "away"
OFFLINE: Final = "offline"
_LETTERS: Final = {ONLINE: "o", AWAY: "a", OFFLINE: "x"}

Command: TypeAlias = tuple[Any, ...]

# What is to be done to each key. Every connection is written every 25 s: one script does what were
# four commands of each, which cost this process many times what they cost Redis.
WRITES: Final = """
local now, seen, life = ARGV[1], ARGV[2], ARGV[3]
for i, key in ipairs(KEYS) do
  local what, member, ends = ARGV[3 * i + 1], ARGV[3 * i + 2], ARGV[3 * i + 3]
  if what == 'zrem' then
    redis.call('ZREM', key, member)
  elseif what == 'seen' then
    redis.call('SET', key, now, 'EX', seen)
  else
    redis.call('ZADD', key, ends, member)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    redis.call('PEXPIRE', key, life)
  end
end
"""


@dataclass(frozen=True, slots=True)
class Status:
    """How a user is; `until_ms` is when somebody has to look again."""

    status: str = OFFLINE
    last_active_ms: int | None = None
    until_ms: int | None = None


@dataclass(slots=True, eq=False)
class Entry:
    """One session of a user on this node."""

    user_id: UUID
    id: str
    status: str = ONLINE
    connections: set[Connection] = field(default_factory=set)
    due_ms: int = 0

    @property
    def member(self) -> str:
        return f"{self.id}/{_LETTERS[self.status]}"


class Watching(Protocol):
    """What the presence calls every second so that watchers hear of changes."""

    async def look(self) -> None:
        """Find what changed and tell it; raises ConnectionError when presence is away."""
        ...


class Presence:
    """This node's sessions as others see them.

    Every second what is due is sent in one go; when Redis is away all of it is sent again later.
    """

    def __init__(self, store: Store, *, tick_s: float = TICK_S) -> None:
        self.entries: dict[int, Entry] = {}
        self._store = store
        # In a Cluster the server of this key tells the time, to all nodes the same.
        self._changes_key = f"{store.prefix}:presence:changes"
        self._tick_s = tick_s
        self._unsent: list[Command] = []
        self._touched: set[UUID] = set()
        self._task: asyncio.Task[None] | None = None
        self.now_ms = 0  # Redis's own time: nodes need not agree on theirs
        self.heard_ms = 0
        self.watching: Watching | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send what waits. Sessions that were cut by our own end have their grace."""
        if self._task is not None:
            await end(self._task)
            with contextlib.suppress(ConnectionError):
                await self._send()

    def enter(self, connection: Connection) -> None:
        entry = self.entries.get(id(connection.session))
        if entry is None:
            entry = Entry(connection.principal.user_id, uuid7().hex)
            self.entries[id(connection.session)] = entry
            self._touched.add(entry.user_id)
        entry.connections.add(connection)

    def leave(self, connection: Connection) -> None:
        entry = self.entries.get(id(connection.session))
        if entry is None or connection not in entry.connections:
            return  # it never came in
        entry.connections.discard(connection)
        if entry.connections:
            return
        del self.entries[id(connection.session)]
        if entry.status == OFFLINE or connection.goodbye:
            self._later("zrem", self._key(entry.user_id), entry.member)
        else:
            # Back within the grace, nobody saw him gone.
            self._later("grace", self._key(entry.user_id), entry.member)
        self._later("seen", f"{self._key(entry.user_id)}:seen")
        self._touched.add(entry.user_id)

    def declare(self, connection: Connection, status: str) -> None:
        """Say how this session's user is; offline is to be unseen."""
        entry = self.entries.get(id(connection.session))
        if entry is None or entry.status == status:
            return
        self._later("zrem", self._key(entry.user_id), entry.member)
        entry.status = status
        entry.due_ms = 0
        self._touched.add(entry.user_id)

    async def read(self, users: Iterable[UUID]) -> dict[UUID, Status]:
        """Read how users are, from Redis.

        Raises:
            ConnectionError: it is away.
        """
        wanted = list(users)
        found: dict[UUID, Status] = {}
        for start in range(0, len(wanted), SLICE):
            part = wanted[start : start + SLICE]
            self.now_ms = await self._store.now_ms(self._changes_key)
            answers = await self._store.ask_all(partial(self._ask_for, part))
            for number, user_id in enumerate(part):
                found[user_id] = self._status(answers[2 * number], answers[2 * number + 1])
        for entry in self.entries.values():
            # Redis hears of new ones at the next tick; who asks may be one of them.
            if entry.due_ms == 0 and entry.user_id in found and entry.status == ONLINE:
                known = found[entry.user_id]
                found[entry.user_id] = Status(ONLINE, known.last_active_ms, self.now_ms)
        return found

    async def changes(self) -> set[UUID]:
        """Give the users whose entries changed since this was last asked."""
        since = max(0, self.heard_ms - 2000)  # what was being written when it was last asked
        found = await self._store.ask(
            lambda redis: redis.zrangebyscore(self._changes_key, since, "+inf", withscores=True)
        )
        for _, at in found:
            self.heard_ms = max(self.heard_ms, int(at))
        return {UUID(name.decode()) for name, _ in found}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self._send()
                if self.watching is not None:
                    await self.watching.look()
            except ConnectionError:
                for entry in self.entries.values():
                    entry.due_ms = 0  # whatever Redis knew, it may have forgotten
            except Exception:
                log.exception("presence_failed")

    async def _send(self) -> None:
        """Write what is due: a pipeline per some hundred commands, one question for the time."""
        now = self.now_ms = await self._store.now_ms(self._changes_key)
        for entry in self.entries.values():
            if entry.status != OFFLINE and entry.due_ms <= now:
                self._later("zadd", self._key(entry.user_id), entry.member)
                self._later("seen", f"{self._key(entry.user_id)}:seen")
                entry.due_ms = now + REFRESH_MS
        commands, self._unsent = self._unsent, []
        touched, self._touched = self._touched, set()
        try:
            for start in range(0, len(commands), SLICE):
                await self._write(commands[start : start + SLICE], now)
            await self._tell(touched, now)
        except ConnectionError:
            self._unsent = (commands + self._unsent)[:MAX_UNSENT]
            self._touched |= touched
            raise

    def _ask_for(self, users: list[UUID], pipe: Any) -> None:
        for user_id in users:
            pipe.zrange(self._key(user_id), 0, -1, withscores=True)
            pipe.get(f"{self._key(user_id)}:seen")

    async def _write(self, commands: list[Command], now: int) -> None:
        lives = {"zadd": now + LIFE_MS, "grace": now + GRACE_MS}
        await self._store.write_all(
            WRITES,
            [key for _, key, *_ in commands],
            [now, SEEN_S, 2 * LIFE_MS],
            [(what, more[0] if more else "", lives.get(what, 0)) for what, _, *more in commands],
        )

    async def _tell(self, touched: set[UUID], now: int) -> None:
        if not touched:
            return

        def fill(pipe: Any) -> None:
            pipe.zadd(self._changes_key, dict.fromkeys(map(str, touched), now))
            pipe.zremrangebyscore(self._changes_key, "-inf", now - CHANGES_MS)
            pipe.pexpire(self._changes_key, 2 * CHANGES_MS)

        await self._store.ask_all(fill)

    def _status(self, entries: list[tuple[bytes, float]], seen: bytes | None) -> Status:
        live = {
            member.rpartition(b"/")[2]: int(ends) for member, ends in entries if ends > self.now_ms
        }
        active = None if seen is None else int(seen)
        if not live:
            return Status(OFFLINE, active)
        return Status(ONLINE if b"o" in live else AWAY, active, max(live.values()))

    def _later(self, *command: Any) -> None:
        if len(self._unsent) < MAX_UNSENT:
            self._unsent.append(command)

    def _key(self, user_id: UUID) -> str:
        return f"{self._store.prefix}:presence:{user_id}"
