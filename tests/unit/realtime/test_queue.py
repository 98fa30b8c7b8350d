"""What waits for one socket stays within its bound."""

from chatserver.realtime.packets import Outgoing
from chatserver.realtime.queue import OutQueue


def packet(size: int = 1000, *, ephemeral: bool = False) -> Outgoing:
    return Outgoing(b"4" + b"x" * (size - 1), ephemeral=ephemeral)


async def test_what_is_taken_out_makes_room_again() -> None:
    queue = OutQueue(limit=3000)
    for _ in range(100):
        queue.put_nowait(packet())
        assert queue.bytes == 1000
        await queue.get()
    assert queue.bytes == 0


async def test_small_packets_count_as_what_they_cost() -> None:
    queue = OutQueue(limit=1024)
    queue.put_nowait(packet(2))
    assert queue.bytes == 256


async def test_ephemeral_packets_go_first() -> None:
    queue = OutQueue(limit=3000)
    full: list[bool] = []
    queue.on_full = lambda: full.append(True)
    queue.put_nowait(packet())
    queue.put_nowait(packet(ephemeral=True))
    queue.put_nowait(packet(ephemeral=True))
    queue.put_nowait(packet(ephemeral=True))
    assert queue.qsize() == 3
    queue.put_nowait(packet())
    assert queue.qsize() == 2
    assert (queue.bytes, queue.dropped, full) == (2000, 3, [])


async def test_a_full_queue_empties_itself_and_says_so_once() -> None:
    queue = OutQueue(limit=3000)
    told: list[int] = []

    def on_full() -> None:
        told.append(queue.qsize())
        queue.last(packet(300))
        queue.finish()

    queue.on_full = on_full
    for _ in range(10):
        queue.put_nowait(packet())
    assert told == [0]
    assert [await queue.get() is None for _ in range(2)] == [False, True]
    assert queue.empty()


async def test_nobody_waits_for_a_peer_to_read() -> None:
    queue = OutQueue(limit=3000)
    queue.put_nowait(packet())
    await queue.join()
    await queue.put(packet())
    assert queue.qsize() == 2
