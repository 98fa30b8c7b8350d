"""Which server of a Redis Cluster has which keys and channels."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, ResponseError, TryAgainError

Address: TypeAlias = tuple[str, int]
Ask: TypeAlias = Callable[..., Awaitable[Any]]

# What a Cluster says when our picture of it is an old one: look again, and connect anew.
MOVED: Final = (AskError, TryAgainError, ClusterDownError)


@dataclass(frozen=True, slots=True)
class Slots:
    """A Cluster's servers: `primaries` have the slots, `others` may have them one day."""

    primaries: tuple[Address, ...]
    others: tuple[Address, ...]
    ranges: tuple[tuple[int, int, int], ...]  # first slot, last slot, place in `primaries`

    def of(self, name: str | bytes) -> int:
        """Tell the place of the server that has a key or a sharded channel.

        Raises:
            ConnectionError: no server has it now.
        """
        slot = key_slot(name.encode() if isinstance(name, str) else name)
        for start, end, place in self.ranges:
            if start <= slot <= end:
                return place
        raise ConnectionError("a slot that no server has")


async def read_slots(ask: Ask, host: str) -> Slots | None:
    """Ask a server, which is reached at `host`, for its Cluster; None: it is in none."""
    try:
        if b"cluster_enabled:1" not in await ask("INFO", "cluster"):
            return None
    except ResponseError:
        return None  # it won't tell us, so it is not for us to know
    places: dict[Address, int] = {}
    others: dict[Address, None] = {}
    ranges = []
    for start, end, primary, *replicas in await ask("CLUSTER", "SLOTS"):
        ranges.append(
            (int(start), int(end), places.setdefault(_address(primary, host), len(places)))
        )
        others.update(dict.fromkeys(_address(replica, host) for replica in replicas))
    return Slots(tuple(places), tuple(others), tuple(ranges))


def _address(node: Sequence[Any], host: str) -> Address:
    # A server that doesn't know its own address leaves it out: it is where we are.
    return (node[0].decode() if node[0] else host, int(node[1]))
