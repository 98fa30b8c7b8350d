"""npm's own socket.io-client, driven from Python."""

import asyncio
import itertools
from pathlib import Path
from typing import Any, Self

import orjson

from tests.support.clients import ANSWER_S, CHAT, ROOMS, Device, RefusedError
from tests.support.nodes import eventually

DRIVER = Path(__file__).parent / "js" / "driver.mjs"
LONGEST_LINE = 16 << 20


class JavaScript:
    """One Node.js process, in which many clients live. Use it as a context manager."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._devices: dict[str, JsDevice] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *("node", "--unhandled-rejections=strict", str(DRIVER)),
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

    async def do(self, what: str, client: str, **more: Any) -> Any:
        assert self._process.stdin is not None
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = orjson.dumps({"id": number, "do": what, "client": client, **more})
        self._process.stdin.write(line + b"\n")
        async with asyncio.timeout(ANSWER_S + 5):
            return await future

    def device(
        self, name: str, url: str, key: str | None, *, label: str = "", **options: Any
    ) -> "JsDevice":
        """Make a client that is yet to be connected; `options` are those of the Manager."""
        made = JsDevice(self, f"{label or name}-{next(self._ids)}", name, url, key, options)
        self._devices[made.label] = made
        return made

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = orjson.loads(line)
            if "id" in said:
                self._settle(self._waiting.pop(said["id"]), said)
            elif "refused" in said:
                self._devices[said["client"]].refusals.append(said["refused"])
            elif "disconnect" in said:
                device = self._devices[said["client"]]
                device.disconnects.append((said["namespace"], said["disconnect"]))
            else:
                device = self._devices[said["client"]]
                device.note(said["namespace"], said["event"], said["args"])
        for future in self._waiting.values():
            future.cancel()

    def _settle(self, future: "asyncio.Future[Any]", said: dict[str, Any]) -> None:
        if future.done():
            return
        if "failed" in said:
            future.set_exception(AssertionError(f"the JavaScript client: {said['failed']}"))
        else:
            future.set_result(said.get("result"))


class JsDevice(Device):
    """A stock client; one Manager of its own, as in a browser's tab."""

    def __init__(
        self,
        js: JavaScript,
        label: str,
        name: str,
        url: str,
        key: str | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__(name, url, key)
        self.label = label
        # What later connects were refused with; see `connect` for the first.
        self.refusals: list[dict[str, Any]] = []
        self._js = js
        self._options = options
        self._is_open = False

    async def open(self) -> None:
        if not self._is_open:
            self._is_open = True
            await self._js.do("open", self.label, url=self.url, options=self._options)

    async def connect(self, *namespaces: str, auth: Any = None) -> "JsDevice":
        await self.open()
        namespaces = namespaces or (ROOMS, CHAT)
        for namespace in namespaces:
            found = await self._js.do(
                "connect",
                self.label,
                namespace=namespace,
                auth={"token": self.key} if auth is None else auth,
            )
            if not found["connected"]:
                raise RefusedError(found["message"], found["data"])
        await self.wait_ready(namespaces)
        return self

    async def connect_and_emit(
        self, namespace: str, event: str, payloads: list[Any]
    ) -> list[dict[str, Any]]:
        """Connect and send at once, without waiting for anything; give the acknowledgements."""
        await self.open()
        found = await self._js.do(
            "connect_and_emit",
            self.label,
            namespace=namespace,
            auth={"token": self.key},
            event=event,
            payloads=payloads,
            timeout=ANSWER_S * 1000,
        )
        assert found["connected"], found
        acks: list[dict[str, Any]] = found["acks"]
        return acks

    async def emit(self, namespace: str, event: str, payload: Any) -> dict[str, Any]:
        ack: dict[str, Any] = await self._js.do(
            "call",
            self.label,
            namespace=namespace,
            event=event,
            args=[payload],
            timeout=ANSWER_S * 1000,
        )
        return ack

    async def emit_many(self, namespace: str, event: str, payloads: list[Any]) -> list[Any]:
        """Send all without waiting for any."""
        acks: list[Any] = await self._js.do(
            "call_many",
            self.label,
            namespace=namespace,
            event=event,
            payloads=payloads,
            timeout=ANSWER_S * 1000,
        )
        return acks

    async def transport(self) -> str | None:
        found: str | None = await self._js.do("transport", self.label)
        return found

    async def upgraded(self) -> None:
        async def is_upgraded() -> bool:
            return await self.transport() == "websocket"

        await eventually(is_upgraded, why=f"{self.name} is upgraded to WebSocket")

    async def lose(self) -> None:
        """Drop the connection without a word; the client comes back by itself."""
        await self._js.do("lose", self.label)

    async def close(self) -> None:
        if self._is_open:
            await self._js.do("close", self.label)
