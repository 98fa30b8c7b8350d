"""Single connections to Redis, without a pool's own ideas about retries and time-outs."""

import math
from typing import Any

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

AWAY = (RedisError, OSError, TimeoutError, EOFError)


class RedisLink:
    """One connection. Every error means: drop it and make another.

    `address` is another server than the URL's, reached with the same credentials.
    """

    def __init__(
        self,
        url: str,
        address: tuple[str, int] | None = None,
        *,
        connect_timeout_s: float = 1.0,
    ) -> None:
        self._pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # an idle listener is silent for as long as it likes
            socket_connect_timeout=connect_timeout_s,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        if address is not None:
            self._pool.connection_kwargs["host"], self._pool.connection_kwargs["port"] = address
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def host(self) -> str:
        return str(self._pool.connection_kwargs.get("host", ""))

    async def open(self) -> None:
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        self._connection = connection

    async def send(self, *command: str | bytes) -> None:
        await self._connection.send_command(*command)

    async def send_all(self, commands: list[tuple[str | bytes, ...]]) -> None:
        await self._connection.send_packed_command(self._connection.pack_commands(commands))

    async def receive(self) -> Any:
        """Wait for the next reply or message, however long."""
        return await self._connection.read_response(disable_decoding=True, timeout=math.inf)

    async def ask(self, *command: str | bytes) -> Any:
        await self.send(*command)
        return await self.receive()

    async def drop(self) -> None:
        """Close at once, without a word to the other side."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
