"""Which nodes there are, and where each is reached: kept in Redis, remembered while it is away."""

import asyncio
import contextlib
import hashlib
import hmac
import re
from typing import Any, Final

import structlog

from chatserver.kernel.tasks import end
from chatserver.realtime.store import Store

log = structlog.get_logger(__name__)

REFRESH_S: Final = 10.0
LIFE_S: Final = 30
# An unknown node is asked for at most so often: session ids are what strangers send.
UNKNOWN_S: Final = 2.0
MOST: Final = 4096

_SID = re.compile(r"([A-Za-z0-9-]{1,32})\.[A-Za-z0-9_-]{1,64}")


def owner_of(sid: str) -> str | None:
    """Tell which node a session id names."""
    found = _SID.fullmatch(sid)
    return found.group(1) if found else None


class NodeRegistry:
    """Announces this node, unless `url` is None, and finds the others.

    Entries are authenticated with the deployment's key: nobody else sends our clients anywhere.
    """

    def __init__(self, store: Store, *, key: bytes, node_id: str, url: str | None) -> None:
        self.node_id = node_id
        self._store = store
        self._key = hashlib.sha256(b"chatserver node v1|" + key).digest()
        self._url = url
        # The tag keeps all of it in one slot of a Redis Cluster.
        self._names = f"{{{store.prefix}:nodes}}"
        self._known: dict[str, str] = {}
        self._unknown: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._turn()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Take the node off the list."""
        await end(self._task)
        if self._url is not None:
            with contextlib.suppress(ConnectionError):
                await self._store.ask(lambda redis: redis.delete(self._name(self.node_id)))
        await self._store.close()

    async def where(self, node_id: str) -> str | None:
        """Give a node's address; None when there is no such node, as far as can be known."""
        known = self._known.get(node_id)
        if known is not None:
            return known
        now = asyncio.get_running_loop().time()
        if self._unknown.get(node_id, 0.0) > now:
            return None
        try:
            value = await self._store.ask(lambda redis: redis.get(self._name(node_id)))
        except ConnectionError:
            return None
        self._note(node_id, value)
        if node_id not in self._known:
            if len(self._unknown) >= MOST:
                self._unknown.clear()
            self._unknown[node_id] = now + UNKNOWN_S
        return self._known.get(node_id)

    def forget(self, node_id: str) -> None:
        """Hear that a node can't be reached where it said."""
        self._known.pop(node_id, None)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._turn()

    async def _turn(self) -> None:
        try:
            await self._announce()
            await self._read()
        except ConnectionError as error:
            log.warning("node_registry_away", error=repr(error))

    async def _announce(self) -> None:
        if self._url is None:
            return
        sealed = self._sealed(self.node_id, self._url)

        def fill(pipe: Any) -> None:
            pipe.set(self._name(self.node_id), sealed, ex=LIFE_S)
            pipe.sadd(self._names, self.node_id)

        await self._store.ask_all(fill)

    async def _read(self) -> None:
        members = await self._store.ask(lambda redis: redis.smembers(self._names))
        names = [name.decode() for name in members]
        if not names:
            self._known.clear()
            return
        keys = [self._name(name) for name in names]
        values = await self._store.ask(lambda redis: redis.mget(keys))
        gone = [name for name, value in zip(names, values, strict=True) if value is None]
        if gone:
            await self._store.ask(lambda redis: redis.srem(self._names, *gone))
        self._known.clear()
        for name, value in zip(names, values, strict=True):
            self._note(name, value)

    def _note(self, node_id: str, value: bytes | None) -> None:
        if value is None:
            self._known.pop(node_id, None)
            return
        mac, _, url = value.decode(errors="replace").partition(" ")
        if hmac.compare_digest(mac, self._mac(node_id, url)):
            self._known[node_id] = url
        else:
            log.warning("node_entry_forged")

    def _sealed(self, node_id: str, url: str) -> str:
        return f"{self._mac(node_id, url)} {url}"

    def _mac(self, node_id: str, url: str) -> str:
        return hmac.new(self._key, f"{node_id}|{url}".encode(), hashlib.sha256).hexdigest()

    def _name(self, node_id: str) -> str:
        return f"{self._names}:{node_id}"
