"""All connections that one end of the bus needs: one, or one to each primary of a Redis Cluster.

In a Cluster a plain PUBLISH goes to every one of its servers. Sharded pub/sub goes to the one that
has the channel's slot, so that more servers carry more. Elsewhere it changes nothing, so it is used
where the server says that it is part of a Cluster, or where a setting says so.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from redis.crc import key_slot
from redis.exceptions import ResponseError

from chatserver.realtime.redis import RedisLink

CHANNELS_PER_COMMAND: Final = 256
# A name for each server's own heartbeat is looked for among so many.
NAMES: Final = 4096

# What a message of sharded pub/sub is without.
_PLAIN: Final = {
    b"smessage": b"message",
    b"ssubscribe": b"subscribe",
    b"sunsubscribe": b"unsubscribe",
}


class RedisLinks:
    """`open` finds out how many there are. An error of one is an error of all: drop them."""

    def __init__(self, url: str, *, sharded: bool | None = None) -> None:
        """`sharded`: whether to use sharded pub/sub; None: where the server is one of a Cluster."""
        self._url = url
        self._wanted = sharded
        self._links: list[RedisLink] = []
        self._ranges: list[tuple[int, int, int]] = []  # first slot, last slot, whose link
        self.is_open = False
        self.is_sharded = False

    def __len__(self) -> int:
        return len(self._links)

    async def open(self) -> None:
        """Connect, to every primary where channels belong to one.

        Raises:
            OSError, RedisError, EOFError: one of them can't be reached.
        """
        first = RedisLink(self._url)
        self._links, self._ranges = [first], []
        await first.open()
        is_cluster = self._wanted is not False and await _is_cluster(first)
        self.is_sharded = is_cluster or self._wanted is True
        if is_cluster:
            await self._open_cluster(first)
        self.is_open = True

    def of(self, channel: str) -> int:
        """Tell which link a channel belongs to."""
        if not self._ranges:
            return 0
        slot = key_slot(channel.encode())
        for start, end, link in self._ranges:
            if start <= slot <= end:
                return link
        raise ConnectionError("a slot that no server has")

    def names(self, base: str) -> list[str]:
        """Give a channel for every link: `base` for the one that it belongs to."""
        found = {self.of(base): base}
        for number in range(NAMES):
            if len(found) == len(self._links):
                break
            name = f"{base}:{number}"
            found.setdefault(self.of(name), name)
        return [found[link] for link in sorted(found)]

    async def subscribe(self, names: Sequence[str]) -> None:
        """Ask to be told what is published there; each is confirmed by its server."""
        await self._tell("SUBSCRIBE", names)

    async def unsubscribe(self, names: Sequence[str]) -> None:
        await self._tell("UNSUBSCRIBE", names)

    async def publish(self, items: Sequence[tuple[str, bytes]]) -> list[int]:
        """Publish all of these; give how many heard each."""
        verb = "SPUBLISH" if self.is_sharded else "PUBLISH"
        parts: dict[int, list[int]] = {}
        for at, (channel, _) in enumerate(items):
            parts.setdefault(self.of(channel), []).append(at)
        for link, places in parts.items():
            await self._links[link].send_all([(verb, *items[at]) for at in places])
        heard = [0] * len(items)
        for link, places in parts.items():
            for at in places:
                heard[at] = await self._links[link].receive()
        return heard

    async def receive(self, link: int) -> Any:
        """Wait for the next message of one link, as (what, channel, data)."""
        what, channel, data = await self._links[link].receive()
        return _PLAIN.get(what, what), channel, data

    async def drop(self) -> None:
        """Close all at once, without a word to the other side."""
        self.is_open = False
        links, self._links = self._links, []
        await asyncio.gather(*(link.drop() for link in links))

    async def _tell(self, verb: str, names: Iterable[str]) -> None:
        for link, commands in self._grouped(verb, names).items():
            await self._links[link].send_all(commands)

    def _grouped(self, verb: str, names: Iterable[str]) -> dict[int, list[tuple[str | bytes, ...]]]:
        """Make commands of names. One of sharded pub/sub has channels of one slot only."""
        if not self.is_sharded:
            every = list(names)
            starts = range(0, len(every), CHANNELS_PER_COMMAND)
            return {0: [(verb, *every[at : at + CHANNELS_PER_COMMAND]) for at in starts]}
        by_slot: dict[int, list[str]] = {}
        for name in names:
            by_slot.setdefault(key_slot(name.encode()), []).append(name)
        commands: dict[int, list[tuple[str | bytes, ...]]] = {}
        for group in by_slot.values():
            commands.setdefault(self.of(group[0]), []).append((f"S{verb}", *group))
        return commands

    async def _open_cluster(self, first: RedisLink) -> None:
        """Read which server has which slots, and connect to all of them."""
        places: dict[tuple[str, int], int] = {}
        for start, end, primary, *_ in await first.ask("CLUSTER", "SLOTS"):
            host, port = primary[0], int(primary[1])
            # A server that doesn't know its own address leaves it out: it is where we are.
            address = (host.decode() if host else first.host, port)
            self._ranges.append((int(start), int(end), places.setdefault(address, len(places))))
        await first.drop()
        self._links = [RedisLink(self._url, address) for address in places]
        for link in self._links:
            await link.open()


async def _is_cluster(link: RedisLink) -> bool:
    try:
        return b"cluster_enabled:1" in await link.ask("INFO", "cluster")
    except ResponseError:
        return False  # it won't tell us, so it is not for us to know
