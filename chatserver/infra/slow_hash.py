"""bcrypt, kept away from the event loop and from melting the machine."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt

from chatserver.kernel.errors import UnavailableError

Result = TypeVar("Result")

COST: Final = 10  # 54 ms a hash on the machine of the design's figures; 12 would be 216 ms
QUEUE: Final = 32
WAIT_S: Final = 2.0


class SlowHasher:
    """A small pool of threads that hash. Whoever would wait longer than 2 s is sent away."""

    def __init__(
        self,
        *,
        cost: int = COST,
        threads: int | None = None,
        queue: int = QUEUE,
        wait_s: float = WAIT_S,
    ) -> None:
        self._cost = cost
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._capacity = self._threads + queue
        self._wait_s = wait_s
        self._waiting = 0
        self._counting = threading.Lock()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="slow-hash")

    async def hash(self, secret: str) -> bytes:
        """Hash a key's secret part: 43 characters, well below bcrypt's limit of 72 bytes.

        Raises:
            UnavailableError: too many wait already, or it took too long.
        """
        return await self._run(lambda: bcrypt.hashpw(secret.encode(), bcrypt.gensalt(self._cost)))

    async def confirms(self, secret: str, hashed: bytes) -> bool:
        """Tell whether the hash is that of the secret; a hash that is none confirms nothing.

        Raises:
            UnavailableError: too many wait already, or it took too long.
        """

        def check() -> bool:
            try:
                return bcrypt.checkpw(secret.encode(), hashed)
            except ValueError:
                return False

        return await self._run(check)

    async def _run(self, work: Callable[[], Result]) -> Result:
        with self._counting:
            if self._waiting >= self._capacity:
                raise UnavailableError("Too many keys are being checked right now.")
            self._waiting += 1
        # A thread can't be interrupted: its place is free again when it is done, not when the
        # caller gives up.
        running = self._pool.submit(work)
        running.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.wrap_future(running)
        except TimeoutError as error:
            raise UnavailableError("Checking the key took too long.") from error

    def _done(self, _: "Future[Result]") -> None:
        with self._counting:
            self._waiting -= 1

    def close(self) -> None:
        """Let the threads go without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)
