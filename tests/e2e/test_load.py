"""Many messages into one room."""

import asyncio

from tests.support.clients import CHAT, PythonDevice
from tests.support.locks import scalar
from tests.support.nodes import Cluster
from tests.support.scene import Scene

SENDERS = 20
EACH = 100
# The room itself, and then a message each.
LAST = 1 + SENDERS * EACH


async def test_2000_messages_by_20_senders_on_two_nodes_reach_everyone_in_order(
    scene: Scene, pair: Cluster
) -> None:
    names = [f"user-{at}" for at in range(SENDERS)]
    await scene.people(*names)
    devices = await asyncio.gather(
        *(scene.device(name, at % 2, namespaces=[CHAT]) for at, name in enumerate(names))
    )
    room = (await scene.api.post("/rooms", {"type": "group", "member_ids": names})).ok()

    async def send(device: PythonDevice) -> list[int]:
        return [(await device.say(room["id"], f"{device.name} {at}"))["seq"] for at in range(EACH)]

    acked = await asyncio.gather(*(send(device) for device in devices))

    # A sender's own messages are in the order in which they were sent.
    assert all(seqs == sorted(seqs) for seqs in acked)
    assert sorted(seq for seqs in acked for seq in seqs) == list(range(2, LAST + 1))
    await asyncio.gather(*(device.has_seq(room["id"], LAST) for device in devices))
    texts = devices[0].texts(room["id"])
    for device in devices:
        assert device.seqs(room["id"]) == list(range(1, LAST + 1)), device.name
        assert device.texts(room["id"]) == texts, device.name
    assert len(set(texts)) == SENDERS * EACH
    count = "select count(*) from message where room_id = $1::text::uuid"
    assert await scalar(pair.database, count, room["id"]) == SENDERS * EACH
