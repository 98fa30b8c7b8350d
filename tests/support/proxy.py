"""A TCP line that can be hurt: passing, slow, swallowing everything, cut, or refusing."""

import asyncio
import contextlib
from typing import Self

CHUNK = 65536
TAKEN_S = 5.0


class Proxy:
    """Use it as a context manager; `port` is where it listens, whatever happens to it.

    `blackhole` is a line that swallows what is sent and stays open, as a lost route does.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._target = port
        self._server: asyncio.Server | None = None
        self._flows: set[asyncio.Task[None]] = set()
        self._taking: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        # Whatever was opened: a line that ends with something left to send stays half open, and
        # nobody else would let it go.
        self._opened: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._latency_s = 0.0
        self.port = 0
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.refuse()
        if self._taking:
            # They see by themselves that nobody is taken any more.
            await asyncio.wait(self._taking, timeout=TAKEN_S)
        for flow in self._flows:
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)
        for writer in list(self._opened):
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def heal(self) -> None:
        """Pass everything again; what a blackhole swallowed is gone with its connections."""
        if not self._open.is_set():
            self.cut()
        self._open.set()
        self._refusing = False
        self._latency_s = 0.0

    def blackhole(self) -> None:
        self._open.clear()

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    def refuse(self) -> None:
        """Cut all connections, and every new one at once."""
        self._refusing = True
        self.cut()

    def latency(self, seconds: float) -> None:
        """Delay each chunk, in both directions."""
        self._latency_s = seconds

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._opened.add(writer)
        taking: asyncio.Task[None] | None = asyncio.current_task()
        assert taking is not None
        self._taking.add(taking)
        taking.add_done_callback(self._taking.discard)
        if self._is_refusing():
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._target)
        except OSError:
            writer.transport.abort()
            return
        self._opened.add(far_writer)
        if self._is_refusing():  # by now
            writer.transport.abort()
            far_writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            flow = asyncio.create_task(self._pass(source, sink))
            self._flows.add(flow)
            flow.add_done_callback(self._flows.discard)

    def _is_refusing(self) -> bool:
        return self._refusing

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if not self._open.is_set():
                    continue
                if self._latency_s:
                    await asyncio.sleep(self._latency_s)
                writer.write(data)
                await writer.drain()
        writer.transport.abort() if self._refusing else writer.close()
        self._writers.discard(writer)
