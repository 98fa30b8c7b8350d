"""Where the pieces of a running answer wait in Redis: checked, kept and published in one step.

All of it may be lost: the message's row has the text up to a second ago, and whoever reads then
reads that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.kernel.events import Committed

RUNNING_S: Final = 3600
ENDED_S: Final = 600
MOST_PIECES: Final = 20_000

# Redis runs it as a whole: nobody can append between the look at the generation and the append, so
# what is published is always where a takeover finds it.
SCRIPT: Final = """
local state, log, readers, op = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
if op == 'take' then
  local g = redis.call('HGET', state, 'g')
  if g and tonumber(g) > tonumber(ARGV[2]) then return {-1} end
  redis.call('HSET', state, 'g', ARGV[2])
  redis.call('HDEL', state, 'c')
  redis.call('EXPIRE', state, ARGV[3])
  return {0, redis.call('XRANGE', log, '-', '+')}
end
if op == 'cancel' then
  if redis.call('EXISTS', state) == 1 then redis.call('HSET', state, 'c', 1) end
  return {0}
end
local g = redis.call('HGET', state, 'g')
if not g then return {-2} end
if g ~= ARGV[2] then return {-1} end
if op == 'clear' then
  redis.call('DEL', log)
  return {0}
end
if op == 'end' then
  for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[3]) end
  return {0}
end
local at = 5
if op == 'emit' then
  redis.call('XADD', log, 'MAXLEN', '~', ARGV[5], ARGV[3] .. '-0', 'g', g, 't', ARGV[6])
  redis.call('EXPIRE', log, ARGV[7])
  redis.call('EXPIRE', state, ARGV[7])
  at = 8
end
for i = at, #ARGV, 2 do redis.call(ARGV[4], ARGV[i], ARGV[i + 1]) end
return {0, redis.call('HEXISTS', state, 'c'), redis.call('SCARD', readers)}
"""


class Outcome(IntEnum):
    """What became of a step. `MISSING`: Redis was emptied; only the row can tell whose it is."""

    DONE = 0
    FENCED = -1
    MISSING = -2


@dataclass(frozen=True, slots=True)
class Emitted:
    """Whether it was appended, whether somebody wants the answer to end, how many read along."""

    outcome: Outcome
    is_cancelled: bool = False
    readers: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """One delta as it waits in the log."""

    index: int
    generation: int
    text: str


class Scripts(Protocol):
    """One connection to Redis with our script; see `infra/redis_scripts.py`."""

    @property
    def is_cluster(self) -> bool:
        """Whether a script reaches no more than one slot."""
        ...

    def ask(self, keys: Sequence[str], arguments: Sequence[str | bytes]) -> Any:  # noqa: ANN401 - a future
        ...

    def run(self, *command: str | int) -> Any:  # noqa: ANN401 - a future
        ...


class Envelopes(Protocol):
    """Packs a fact for the bus; see `realtime/publisher.py`."""

    def envelopes(self, fact: Committed) -> list[tuple[str, bytes]]:
        """Give the channels a fact goes to, with what is published there."""
        ...

    def channel_of(self, room_id: UUID) -> str:
        """Name the channel of a room's facts."""
        ...

    def put(self, channel: str, data: bytes) -> None:
        """Publish soon, in the order of the calls."""
        ...


class StreamLog:
    """The pieces of all running answers. Raises `RedisAwayError` while Redis is away."""

    def __init__(
        self,
        scripts: Scripts,
        bus: Envelopes,
        *,
        sharded: bool | None = None,
        prefix: str = "chatserver",
    ) -> None:
        """`sharded`: whether the bus uses sharded pub/sub; None: where there is a Cluster."""
        self._scripts = scripts
        self._bus = bus
        self._sharded = sharded
        self._prefix = prefix

    async def take(self, room_id: UUID, message_id: UUID, generation: int) -> list[Piece] | None:
        """Fence everybody with a lower number off, and read what they left; None: too late."""
        answer = await self._ask(room_id, message_id, "take", generation, RUNNING_S)
        return _pieces(answer[1]) if answer[0] == Outcome.DONE else None

    async def clear(self, room_id: UUID, message_id: UUID, generation: int) -> None:
        """Forget the pieces: the row has them."""
        await self._ask(room_id, message_id, "clear", generation)

    async def emit(self, room_id: UUID, message_id: UUID, piece: Piece, fact: Committed) -> Emitted:
        """Append a piece and publish it, if the generation is still the current one."""
        within, after = self._packed(room_id, fact)
        answer = await self._ask(
            room_id,
            message_id,
            "emit",
            piece.generation,
            piece.index,
            self._verb,
            MOST_PIECES,
            piece.text.encode(),
            RUNNING_S,
            *within,
        )
        return self._emitted(answer, after)

    async def tell(
        self, room_id: UUID, message_id: UUID, generation: int, fact: Committed
    ) -> Emitted:
        """Publish a fact in its place among the pieces, if the generation is still current."""
        within, after = self._packed(room_id, fact)
        answer = await self._ask(room_id, message_id, "tell", generation, 0, self._verb, *within)
        return self._emitted(answer, after)

    async def end(self, room_id: UUID, message_id: UUID, generation: int) -> None:
        """Let go of the pieces soon: the answer is complete, or failed."""
        await self._ask(room_id, message_id, "end", generation, ENDED_S)

    async def cancel(self, room_id: UUID, message_id: UUID) -> None:
        """Tell whoever writes the answer that it is to end."""
        await self._ask(room_id, message_id, "cancel")

    async def read(self, room_id: UUID, message_id: UUID, *, after: int = 0) -> list[Piece]:
        """Read the pieces after an index."""
        _, log, _ = self._keys(room_id, message_id)
        return _pieces(await self._scripts.run("XRANGE", log, f"{after + 1}-0", "+"))

    async def add_reader(self, room_id: UUID, message_id: UUID, user_id: UUID) -> None:
        """Note who reads along, for rooms where not everybody gets the pieces."""
        *_, readers = self._keys(room_id, message_id)
        added = self._scripts.run("SADD", readers, str(user_id))
        await self._scripts.run("EXPIRE", readers, RUNNING_S)
        await added

    async def readers(self, room_id: UUID, message_id: UUID) -> tuple[UUID, ...]:
        *_, readers = self._keys(room_id, message_id)
        found = await self._scripts.run("SMEMBERS", readers)
        return tuple(UUID(each.decode()) for each in found)

    async def _ask(self, room_id: UUID, message_id: UUID, *arguments: str | bytes | int) -> Any:  # noqa: ANN401 - what the script gives
        asked = [str(each) if isinstance(each, int) else each for each in arguments]
        return await self._scripts.ask(self._keys(room_id, message_id), asked)

    def _keys(self, room_id: UUID, message_id: UUID) -> tuple[str, str, str]:
        # The tag keeps an answer's keys in one slot of a Cluster, that of the room's channel.
        name = f"{self._prefix}:answer:{{{self._bus.channel_of(room_id)}}}:{message_id.hex}"
        return name, f"{name}:log", f"{name}:readers"

    @property
    def _verb(self) -> str:
        sharded = self._scripts.is_cluster if self._sharded is None else self._sharded
        return "SPUBLISH" if sharded else "PUBLISH"

    def _packed(
        self, room_id: UUID, fact: Committed
    ) -> tuple[list[str | bytes], list[tuple[str, bytes]]]:
        """Pack a fact: what the script publishes itself, and what is published after it."""
        envelopes = self._bus.envelopes(fact)
        after: list[tuple[str, bytes]] = []
        if self._scripts.is_cluster:
            # A script reaches one slot. What goes to single people is elsewhere; whoever gets it
            # after a takeover knows by its generation that it is an old one.
            channel = self._bus.channel_of(room_id)
            after = [each for each in envelopes if each[0] != channel]
            envelopes = [each for each in envelopes if each[0] == channel]
        return [part for envelope in envelopes for part in envelope], after

    def _emitted(self, answer: Any, after: list[tuple[str, bytes]]) -> Emitted:  # noqa: ANN401 - what the script gives
        if answer[0] != Outcome.DONE:
            return Emitted(Outcome(answer[0]))
        for channel, data in after:
            self._bus.put(channel, data)
        return Emitted(Outcome.DONE, bool(answer[1]), int(answer[2]))


def _pieces(entries: Any) -> list[Piece]:  # noqa: ANN401 - what XRANGE gives
    found = []
    for entry_id, fields in entries:
        members = dict(zip(fields[::2], fields[1::2], strict=True))
        index = int(entry_id.partition(b"-")[0])
        found.append(Piece(index, int(members[b"g"]), members[b"t"].decode()))
    return found


def contiguous(pieces: Sequence[Piece], *, after: int, generation: int) -> list[Piece]:
    """Give the pieces that follow an index without a hole, up to a generation."""
    found: list[Piece] = []
    for piece in pieces:
        if piece.index <= after:
            continue
        if piece.index != after + 1 or piece.generation > generation:
            break
        found.append(piece)
        after = piece.index
    return found
