"""What waits for one socket stays within its bound, and leaves in as few writes as can be."""

import asyncio
from typing import Any

import pytest

from chatserver.realtime import outbox
from chatserver.realtime.outbox import HIGH_WATER, Outbox, Writer
from chatserver.realtime.packets import CLOSE_FRAME, Outgoing


def packet(size: int = 1000, *, ephemeral: bool = False, letter: bytes = b"x") -> Outgoing:
    """Make a packet that costs `size` bytes on the wire."""
    header = 2 if size < 128 else 4
    return Outgoing(b"4" + letter * (size - header - 1), ephemeral=ephemeral)


class Line:
    """A transport whose peer reads when the test says so."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.held = 0
        self.closing = False

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        self.held += len(data)


def connected(limit: int = 3000) -> tuple[Outbox, Line]:
    line = Line()
    box = Outbox(Writer(), limit)
    box.connect(line)  # type: ignore[arg-type]  # all that is asked of a transport
    return box, line


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_what_one_turn_leaves_is_one_write() -> None:
    box, line = connected()
    packets = [packet(300, letter=letter) for letter in (b"a", b"b", b"c")]
    for each in packets:
        box.put_nowait(each)
    assert line.writes == []
    await turn()
    assert line.writes == [b"".join(each.wire for each in packets)]
    assert (box.bytes, len(box)) == (0, 0)
    box.put_nowait(packets[0])
    await turn()
    assert line.writes[1:] == [packets[0].wire]


async def test_sockets_share_the_packet_and_not_the_order_of_others() -> None:
    writer = Writer()
    lines = [Line() for _ in range(outbox.SLICE + 5)]
    boxes = [Outbox(writer) for _ in lines]
    shared = packet()
    for box, line in zip(boxes, lines, strict=True):
        box.connect(line)  # type: ignore[arg-type]
        box.put_nowait(shared)
    await asyncio.sleep(0)
    assert [len(line.writes) for line in lines] == [1] * outbox.SLICE + [0] * 5
    await asyncio.sleep(0)
    assert all(line.writes == [shared.wire] and line.writes[0] is shared.wire for line in lines)


async def test_small_packets_count_as_what_they_cost() -> None:
    box = Outbox(Writer())
    box.put_nowait(packet(5))
    assert box.bytes == 256


async def test_ephemeral_packets_go_first() -> None:
    box = Outbox(Writer(), 3000)
    full: list[bool] = []
    box.on_full = lambda: full.append(True)
    box.put_nowait(packet())
    for _ in range(3):
        box.put_nowait(packet(ephemeral=True))
    assert len(box) == 3
    box.put_nowait(packet())
    assert len(box) == 2
    assert (box.bytes, box.dropped, full) == (2000, 3, [])


async def test_a_full_outbox_empties_itself_and_says_so_once() -> None:
    box = Outbox(Writer(), 3000)
    told: list[int] = []
    last = packet(300)

    def on_full() -> None:
        told.append(len(box))
        box.finish(last)

    box.on_full = on_full
    for _ in range(10):
        box.put_nowait(packet())
    assert told == [0]
    assert box.take(16) == [last]
    assert box.finished


async def test_the_transports_own_buffer_counts() -> None:
    box, line = connected(limit=200_000)
    full: list[bool] = []
    box.on_full = lambda: full.append(True)
    for _ in range(2):
        box.put_nowait(packet(60_000))
        await turn()
    assert line.held == 120_000
    box.put_nowait(packet(60_000))
    await turn()
    assert (box.held, box.bytes, full) == (180_000, 60_000, [])
    box.put_nowait(packet(60_000))
    assert full == [True]


async def test_a_full_transport_is_left_alone_until_it_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "LATER_S", 0.001)
    box, line = connected(limit=1 << 20)
    await turn()
    line.held = HIGH_WATER + 1
    box.put_nowait(packet())
    box.put_nowait(packet(ephemeral=True))
    await asyncio.sleep(0.01)
    assert line.writes == []
    line.held = 0
    await asyncio.sleep(0.01)
    assert len(line.writes) == 1
    assert box.bytes == 0


async def test_the_last_packets_are_added_beyond_the_bound_and_a_close_frame_behind_them() -> None:
    box, line = connected(limit=500)
    box.put_nowait(packet(400))
    box.last(packet(400))
    box.finish()
    box.finish()
    box.put_nowait(packet(10))
    await turn()
    assert line.writes == [packet(400).wire * 2 + CLOSE_FRAME]


async def test_a_closing_transport_is_written_nothing() -> None:
    box, line = connected()
    line.closing = True
    box.put_nowait(packet())
    await turn()
    assert (line.writes, box.bytes) == ([], 0)


async def test_a_poll_is_woken_once_a_turn_and_takes_so_many() -> None:
    box = Outbox(Writer(), 1 << 20)
    woken: list[int] = []
    box.wake = lambda: woken.append(len(box))
    packets: list[Any] = [packet(300) for _ in range(20)]
    for each in packets:
        box.put_nowait(each)
    await turn()
    assert woken == [20]
    assert box.take(16) == packets[:16]
    assert box.bytes == 4 * 300
    many = Outgoing(b"45", attachments=[b"x"] * 40)
    box.put_nowait(many)
    assert box.take(16) == packets[16:]
    assert box.take(16) == [many]
    assert box.bytes == 0
