"""What this node subscribes to: no more than it needs, and no less."""

import asyncio

from chatserver.realtime.channels import LINGER_S, Channels


async def test_a_channel_is_asked_for_once_however_many_need_it() -> None:
    channels = Channels(["all"])
    channels.retain("r1")
    channels.retain("r1")
    assert channels.to_subscribe() == ["all", "r1"]
    channels.retain("r1")
    assert channels.to_subscribe() == []


async def test_one_that_nobody_needs_stays_for_a_minute() -> None:
    channels = Channels([])
    channels.retain("r1")
    channels.retain("r2")
    channels.to_subscribe()
    channels.release("r1", 0.0)
    channels.release("r2", 0.0)
    assert channels.to_unsubscribe(LINGER_S - 1) == []
    channels.retain("r2")
    assert channels.to_subscribe() == []
    assert channels.to_unsubscribe(LINGER_S) == ["r1"]
    channels.retain("r1")
    assert channels.to_subscribe() == ["r1"]


async def test_waiting_ends_with_the_confirmation_or_the_time() -> None:
    channels = Channels([])
    channels.retain("r1")
    channels.to_subscribe()
    assert not await channels.wait(["r1"], 0.01)
    waiting = asyncio.create_task(channels.wait(["r1"], 5))
    await asyncio.sleep(0)
    channels.confirm("r1")
    assert await waiting
    assert await channels.wait(["r1"], 0)


async def test_after_a_loss_everything_needed_is_asked_for_again() -> None:
    channels = Channels(["all"])
    for name in ("r1", "r2"):
        channels.retain(name)
    channels.to_subscribe()
    restored = []
    for name in ("all", "r1", "r2"):
        restored.append(channels.is_restored)
        channels.confirm(name)
    restored.append(channels.is_restored)
    channels.release("r2", 0.0)
    channels.lose()
    restored.append(channels.is_restored)
    assert restored == [False, False, False, True, False]
    assert channels.to_subscribe() == ["all", "r1"]
