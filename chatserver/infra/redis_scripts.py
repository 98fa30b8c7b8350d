"""Scripts run in Redis: whoever asks at the same time shares one write, and nobody waits long.

In a Redis Cluster each question goes to the server that has its keys: those of one question must be
in one slot (a tag in braces in their names), see `apart`.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisError, ResponseError

from chatserver.infra.redis_slots import MOVED, Address, Slots, read_slots
from chatserver.kernel.tasks import end

log = structlog.get_logger(__name__)

AWAY: Final = (RedisError, OSError, TimeoutError, EOFError)
CONNECT_S: Final = 1.0
# Redis runs a script in microseconds: whoever hears nothing for so long talks to a dead line.
SILENCE_S: Final = 0.5
RETRY_S: Final = 0.5
AT_ONCE: Final = 256


class RedisAwayError(Exception):
    """Redis can't be asked right now."""


@dataclass(slots=True, eq=False)
class _Asked:
    command: tuple[str | int | bytes, ...]
    answer: "asyncio.Future[Any]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class RedisScripts:
    """One connection, or one to each primary of a Cluster, and the script that is run there.

    `ask` fails at once while Redis is away; one server of a Cluster that is away is all of it.

    `returned` is awaited before anybody may ask again after an outage.
    """

    def __init__(self, url: str, script: str, *, name: str = "limits") -> None:
        self._away, self._there = f"redis_{name}_away", f"redis_{name}_there"
        self._url = url
        self._script = script
        self._sha = hashlib.sha1(script.encode()).hexdigest()  # noqa: S324 - Redis names scripts so
        self._connections: list[Any] = []
        self._slots: Slots | None = None
        self._known: tuple[Address, ...] = ()
        self._tries = 0
        self._waiting: list[_Asked] = []
        self._asked: list[_Asked] = []
        self._sender: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._silent: asyncio.TimerHandle | None = None
        self._broken = asyncio.Event()
        self._retry_s = RETRY_S
        self.is_there = False
        self._was_away = False
        self.returned: Callable[[], Awaitable[None]] = _nothing

    async def start(self) -> None:
        """Connect if Redis is there, and go on trying whenever it is not."""
        self._broken.set()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        first = asyncio.get_running_loop().time() + CONNECT_S
        while not self.is_there and asyncio.get_running_loop().time() < first:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        await end(self._keeper)
        await end(self._sender)
        await self._drop()

    @property
    def is_cluster(self) -> bool:
        """Whether what was connected to last is a Redis Cluster."""
        return self._slots is not None

    def apart(self, keys: Sequence[str]) -> list[list[int]]:
        """Group keys by where they are, as places in `keys`: who asks may not mix them."""
        if self._slots is None:
            return [list(range(len(keys)))]
        groups: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            groups.setdefault(key_slot(key.encode()), []).append(place)
        return list(groups.values())

    def ask(self, keys: Sequence[str], arguments: Sequence[str | bytes]) -> "asyncio.Future[Any]":
        """Run the script; the future fails with `RedisAwayError` when it can't be.

        Raises:
            RedisAwayError: Redis is known to be away.
        """
        if not self.is_there:
            raise RedisAwayError
        return self._put("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def run(self, *command: str | int) -> "asyncio.Future[Any]":
        """Run a command of Redis's own, its key first, in its turn; fails as `ask` does.

        Raises:
            RedisAwayError: Redis is known to be away.
        """
        if not self.is_there:
            raise RedisAwayError
        return self._put(*command)

    def ask_first(self, keys: Sequence[str], arguments: Sequence[str]) -> "asyncio.Future[Any]":
        """Do as `ask`, for `returned` alone: the connection stands, but is nobody else's yet."""
        return self._put("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def _put(self, *command: str | int | bytes) -> "asyncio.Future[Any]":
        asked = _Asked(command)
        # Whoever gave up waiting must not leave a complaint behind.
        asked.answer.add_done_callback(_retrieve)
        self._waiting.append(asked)
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())
        return asked.answer

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                self._asked, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                self._silent = loop.call_later(SILENCE_S, self._break)
                try:
                    await self._exchange(self._asked)
                finally:
                    self._silent.cancel()
        except AWAY:
            self._break()
        finally:
            self._sender = None
            if self._waiting and not self._broken.is_set():
                self._sender = loop.create_task(self._send())

    async def _exchange(self, asked: list[_Asked]) -> None:
        connections, slots = self._connections, self._slots
        if not connections:
            raise ConnectionError
        parts: dict[int, list[_Asked]] = {}
        for each in asked:
            place = 0 if slots is None else slots.of(_key_of(each.command))
            parts.setdefault(place, []).append(each)
        for place, part in parts.items():
            connection = connections[place]
            packed = connection.pack_commands([each.command for each in part])
            await connection.send_packed_command(packed)
        for place, part in parts.items():
            for each in part:
                await self._read(connections[place], each)

    async def _read(self, connection: Any, asked: _Asked) -> None:  # noqa: ANN401 - redis-py's
        try:
            answer = await connection.read_response(disable_decoding=True)
        except (NoScriptError, *MOVED) as error:
            # Redis was restarted or flushed under us, or a slot moved: start anew, as after an
            # outage.
            raise ConnectionError from error
        except ResponseError:
            log.exception("redis_script_failed")
            _fail(asked)
            return
        if not asked.answer.done():
            asked.answer.set_result(answer)

    def _break(self) -> None:
        """Give the line up: everybody who waits is told, and the keeper makes another."""
        if self.is_there:
            self._was_away = True
            log.warning(self._away)
        self.is_there = False
        if self._sender is not None and self._sender is not asyncio.current_task():
            self._sender.cancel()
        connections, self._connections = self._connections, []
        for connection in connections:
            close = asyncio.get_running_loop().create_task(connection.disconnect(nowait=True))
            close.add_done_callback(_retrieve)
        for each in (*self._asked, *self._waiting):
            _fail(each)
        self._asked, self._waiting = [], []
        self._broken.set()

    async def _keep(self) -> None:
        while True:
            await self._broken.wait()
            try:
                await self._open()
            except (*AWAY, RedisAwayError):
                await self._drop()
                await asyncio.sleep(self._retry_s)

    async def _open(self) -> None:
        async with asyncio.timeout(CONNECT_S):
            self._connections = await self._connect()
        self._broken.clear()
        await self.returned()
        if self._broken.is_set():
            raise RedisAwayError
        self.is_there = True
        if self._was_away:
            log.info(self._there)
        self._was_away = False

    async def _connect(self) -> list[Any]:
        candidates = (None, *self._known)
        address = candidates[self._tries % len(candidates)]
        # Who fails, or is silent until the time is over, is not the next one to be asked.
        self._tries += 1
        made: list[Any] = []
        try:
            first = await self._line(address, made)
            self._slots = await read_slots(_asking(first), str(getattr(first, "host", "")))
            if self._slots is not None:
                self._known = (*self._slots.primaries, *self._slots.others)
                made.remove(first)
                await first.disconnect(nowait=True)
                for each in self._slots.primaries:
                    await self._line(each, made)
            for connection in made:
                await _asking(connection)("SCRIPT", "LOAD", self._script)
        except BaseException:
            for connection in made:
                await connection.disconnect(nowait=True)
            raise
        self._tries -= 1
        return made

    async def _line(self, address: Address | None, made: list[Any]) -> Any:  # noqa: ANN401 - redis-py's
        pool = ConnectionPool.from_url(
            self._url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        if address is not None:
            pool.connection_kwargs["host"], pool.connection_kwargs["port"] = address
        connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]
        made.append(connection)
        await connection.connect()
        return connection

    async def _drop(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            await connection.disconnect(nowait=True)


def _asking(connection: Any) -> Callable[..., Awaitable[Any]]:  # noqa: ANN401 - redis-py's
    async def ask(*command: str) -> Any:  # noqa: ANN401 - whatever Redis says
        await connection.send_command(*command)
        return await connection.read_response(disable_decoding=True)

    return ask


def _key_of(command: Sequence[str | int | bytes]) -> str:
    return str(command[3] if command[0] == "EVALSHA" else command[1])


def _fail(asked: _Asked) -> None:
    if not asked.answer.done():
        asked.answer.set_exception(RedisAwayError())


def _retrieve(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()


async def _nothing() -> None:
    return
