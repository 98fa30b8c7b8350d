"""WebSocket frames by hand: whole, in pieces, broken, and as many as anyone likes (RFC 6455)."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from chatserver.realtime.wire import READ_AHEAD, WebSocketWire

LIMIT = 100_000


def frame(payload: bytes, opcode: int = 1, *, final: bool = True, reserved: int = 0) -> bytes:
    """A client's frame, masked as it must be."""
    head = bytes([(0x80 if final else 0) | reserved | opcode])
    size = len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Line:
    """A transport that remembers what it was told."""

    def __init__(self) -> None:
        self.written = b""
        self.state: list[str] = []
        self.waiting = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.state.append("closed")

    def abort(self) -> None:
        self.state.append("aborted")

    def is_closing(self) -> bool:
        return bool({"closed", "aborted"} & set(self.state))

    def pause_reading(self) -> None:
        self.state.append("paused")

    def resume_reading(self) -> None:
        self.state.append("resumed")

    def get_write_buffer_size(self) -> int:
        return self.waiting


class Listener:
    def __init__(self, line: Line) -> None:
        self.heard: list[str | bytes] = []
        self.ticks = 0
        self.left: list[bytes] = []
        self.gate: asyncio.Event | None = None
        self._line = line

    def receive(self, message: str | bytes) -> Awaitable[None] | None:
        self.heard.append(message)
        return None if self.gate is None else self._wait()

    def tick(self) -> None:
        self.ticks += 1

    def gone(self, farewell: bytes) -> None:
        self.left.append(farewell)
        self._line.write(farewell)

    async def _wait(self) -> None:
        assert self.gate is not None
        await self.gate.wait()


class Setting:
    def __init__(self) -> None:
        self.line = Line()
        self.peer = Listener(self.line)
        line: Any = self.line
        self.wire = WebSocketWire(line, LIMIT, self.peer)


@pytest.fixture
async def at() -> Setting:
    return Setting()


MESSAGES: list[tuple[int, bytes]] = [
    (1, b""),
    (1, b"2probe"),
    (1, "grüße 👋".encode()),
    (2, bytes(range(256))),
    (1, b"x" * 125),
    (1, b"x" * 126),
    (2, b"y" * 65_535),
    (2, b"z" * 65_536),
    (1, b"a" * LIMIT),
]
AS_TOLD: list[str | bytes] = [
    payload.decode() if opcode == 1 else payload for opcode, payload in MESSAGES
]


class TestMessages:
    @pytest.mark.parametrize("seed", range(6))
    async def test_they_arrive_however_they_are_cut_into_segments(
        self, at: Setting, seed: int
    ) -> None:
        chance = random.Random(seed)
        data = b"".join(frame(payload, opcode) for opcode, payload in MESSAGES)
        while data:
            size = chance.choice([1, 2, 3, 7, 100, 5000, len(data)])
            at.wire.data_received(data[:size])
            data = data[size:]
        assert at.peer.heard == AS_TOLD
        assert at.peer.left == []

    async def test_a_message_may_come_in_many_frames_with_pings_between(self, at: Setting) -> None:
        text = "grüße 👋" * 10
        raw = text.encode()
        at.wire.data_received(frame(raw[:3], 1, final=False))
        for byte in raw[3:-1]:
            at.wire.data_received(frame(bytes([byte]), 0, final=False) + frame(b"hi", 9))
        at.wire.data_received(frame(raw[-1:], 0))
        assert at.peer.heard == [text]
        assert at.line.written == b"\x8a\x02hi" * (len(raw) - 4)
        assert at.peer.ticks > 2 * (len(raw) - 4)  # neither fragments nor pings are for nothing

    async def test_a_peer_that_does_not_read_gets_no_pongs(self, at: Setting) -> None:
        at.line.waiting = 1 << 20
        at.wire.data_received(frame(b"hi", 9) * 1000)
        for _ in range(100):
            await asyncio.sleep(0)
        assert at.peer.ticks == 1000
        assert at.line.written == b""


class TestWaiting:
    async def test_the_next_is_not_handled_before_the_last_one_is(self, at: Setting) -> None:
        at.peer.gate = asyncio.Event()
        at.wire.data_received(b"".join(frame(b"%d" % number) for number in range(3)))
        at.wire.data_received(frame(b"3") + frame(b"4")[:5])
        await asyncio.sleep(0)
        assert at.peer.heard == ["0"]
        at.peer.gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert at.peer.heard == ["0", "1", "2", "3"]

    async def test_a_peer_is_not_read_further_than_so_far_ahead(self, at: Setting) -> None:
        at.peer.gate = asyncio.Event()
        at.wire.data_received(frame(b"first"))
        at.wire.data_received(frame(b"x" * READ_AHEAD))
        assert at.line.state == ["paused"]
        at.peer.gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert at.line.state == ["paused", "resumed"]
        assert at.peer.heard == ["first", "x" * READ_AHEAD]

    async def test_a_segment_full_of_frames_leaves_others_their_turn(self, at: Setting) -> None:
        turns: list[int] = []

        def slowly(message: str | bytes) -> None:
            at.peer.heard.append(message)
            until = time.perf_counter() + 0.0005
            while time.perf_counter() < until:
                pass

        at.peer.receive = slowly  # type: ignore[method-assign]  # takes its time, and never waits
        at.wire.data_received(b"".join(frame(b"%d" % number) for number in range(1000)))
        while len(at.peer.heard) < 1000:
            turns.append(len(at.peer.heard))
            await asyncio.sleep(0)
        assert at.peer.heard == [str(number) for number in range(1000)]
        assert len(turns) > 20

    async def test_one_that_leaves_meanwhile_is_told_nothing_more(self, at: Setting) -> None:
        at.peer.gate = asyncio.Event()
        at.wire.data_received(frame(b"0") + frame(b"1"))
        at.wire.connection_lost(None)
        at.peer.gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert at.peer.heard == ["0"]
        assert len(at.peer.left) == 1


class TestEnding:
    @pytest.mark.parametrize(
        ("wrong", "code"),
        [
            (frame(b"x", reserved=0x40), 1002),
            (frame(b"x", reserved=0x10), 1002),
            (frame(b"x", 3), 1002),
            (frame(b"x", 11), 1002),
            (frame(b"x", 9, final=False), 1002),
            (frame(b"x" * 126, 9), 1002),
            (frame(b"x", 0), 1002),
            (frame(b"x", final=False) + frame(b"x"), 1002),
            (b"\x81\x01x" + b"....", 1002),
            (frame(b"x", 8), 1002),
            (frame(b"\xff\xfe"), 1007),
            (frame(b"\xed\xa0\x80"), 1007),
            (frame(b"x" * (LIMIT + 1)), 1009),
            (frame(b"x" * LIMIT, final=False) + frame(b"x", 0), 1009),
            (b"\x81\xff" + b"\xff" * 8, 1009),
        ],
    )
    async def test_what_may_not_be_ends_the_connection_with_its_code(
        self, at: Setting, wrong: bytes, code: int
    ) -> None:
        at.wire.data_received(frame(b"before") + wrong + frame(b"after"))
        at.wire.data_received(frame(b"and later"))
        assert at.peer.heard == ["before"]
        assert at.peer.left == [b"\x88\x02" + code.to_bytes(2, "big")]
        assert at.line.written == at.peer.left[0]

    async def test_too_large_a_frame_is_refused_by_its_head_alone(self, at: Setting) -> None:
        at.wire.data_received(frame(b"x" * (LIMIT + 1))[:14])
        assert at.peer.left == [b"\x88\x02\x03\xf1"]

    async def test_a_close_is_answered_and_nothing_after_it_is_read(self, at: Setting) -> None:
        at.wire.data_received(frame(b"\x03\xe8bye", 8) + frame(b"after"))
        assert at.peer.heard == []
        assert at.peer.left == [b"\x88\x00"]
        assert at.line.state == ["closed"]

    async def test_a_lost_connection_is_told_once(self, at: Setting) -> None:
        at.wire.data_received(frame(b"", 8))
        at.wire.connection_lost(None)
        assert len(at.peer.left) == 1

    async def test_whoever_was_hung_up_on_is_not_heard_any_more(self, at: Setting) -> None:
        at.wire.hang_up()
        at.wire.data_received(frame(b"but") + frame(b"hi", 9))
        assert at.peer.heard == []
        assert at.line.written == b"\x88\x00"
        at.wire.data_received(frame(b"", 8))
        assert at.line.state == ["closed"]


async def test_a_large_frame_in_tiny_segments_is_not_copied_again_and_again(at: Setting) -> None:
    data = frame(b"x" * 60_000)
    kept = set()
    for byte in range(len(data)):
        at.wire.data_received(data[byte : byte + 1])
        if byte > 100:
            kept.add(id(at.wire._rest))
    assert at.peer.heard == ["x" * 60_000]
    # One thing that grew, until nothing was left.
    assert len(kept) == 2
