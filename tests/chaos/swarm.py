"""Many JavaScript clients in one process, and the history of what they saw."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import orjson

SWARM = Path(__file__).parent / "swarm.mjs"
LONGEST_LINE = 16 << 20


class Swarm:
    """Use it as a context manager. `history` is one JSON object a line, see swarm.mjs."""

    def __init__(self, history: Path) -> None:
        self.history = history
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *("node", "--unhandled-rejections=strict", str(SWARM), str(self.history)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def do(self, what: str, **more: Any) -> Any:
        """Run a command of swarm.mjs and give its result; a failure there is one here."""
        assert self._process.stdin is not None
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = orjson.dumps({"id": number, "do": what, **more})
        self._process.stdin.write(line + b"\n")
        return await future

    def read(self) -> Iterator[dict[str, Any]]:
        """Give the history, once the swarm has been closed."""
        with self.history.open("rb") as lines:
            for line in lines:
                yield orjson.loads(line)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = orjson.loads(line)
            future = self._waiting.pop(said["id"])
            if future.done():
                continue
            if "failed" in said:
                future.set_exception(AssertionError(f"the swarm: {said['failed']}"))
            else:
                future.set_result(said["result"])
        for future in self._waiting.values():
            future.cancel()
