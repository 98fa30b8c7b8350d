"""All connections that one end of the bus needs: one, or one to each primary of a Redis Cluster.

In a Cluster a plain PUBLISH goes to every one of its servers. Sharded pub/sub goes to the one that
has the channel's slot, so that more servers carry more. Elsewhere it changes nothing, so it is used
where the server says that it is part of a Cluster, or where a setting says so.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from redis.crc import key_slot

from chatserver.infra.redis_slots import Address, Slots, read_slots
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
        self._slots: Slots | None = None
        # Where else the Cluster may be found when the URL's own server is gone.
        self._known: tuple[Address, ...] = ()
        self._tries = 0
        self.is_open = False
        self.is_sharded = False

    def __len__(self) -> int:
        return len(self._links)

    async def open(self) -> None:
        """Connect, to every primary where channels belong to one.

        Raises:
            OSError, RedisError, EOFError: one of them can't be reached.
        """
        self._slots = None
        candidates = (None, *self._known)
        first = RedisLink(self._url, candidates[self._tries % len(candidates)])
        # Who fails, or is silent until our caller gives up, is not the next one to be asked.
        self._tries += 1
        self._links = [first]
        await first.open()
        if self._wanted is not False:
            self._slots = await read_slots(first.ask, first.host)
        self.is_sharded = self._slots is not None or self._wanted is True
        if self._slots is not None:
            await self._open_cluster(first, self._slots)
        self._tries -= 1
        self.is_open = True

    def of(self, channel: str) -> int:
        """Tell which link a channel belongs to."""
        return 0 if self._slots is None else self._slots.of(channel)

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

    async def _open_cluster(self, first: RedisLink, slots: Slots) -> None:
        """Connect to all servers that have slots."""
        self._known = (*slots.primaries, *slots.others)
        await first.drop()
        self._links = [RedisLink(self._url, address) for address in slots.primaries]
        for link in self._links:
            await link.open()
