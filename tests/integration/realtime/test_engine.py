"""Two nodes, one Redis, stock clients."""

import asyncio
from typing import Any

import pytest
import socketio

from chatserver.kernel.events import Committed, Effect
from chatserver.kernel.ids import uuid7
from chatserver.realtime.ports import Closing
from chatserver.realtime.publisher import BusPublisher, BusSettings
from tests.support.proxy import Proxy
from tests.support.realtime import CLIENT, Person, Truth, node, until, user_id
from tests.support.servers import TestValkey


async def test_members_on_two_nodes_see_one_room_in_one_order(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    truth.join(room, "ann", "ben")
    async with node(truth, valkey.url, "a") as a, node(truth, valkey.url, "b") as b:
        ann = await Person("ann").connect(a)
        ben = await Person("ben").connect(b)
        for count in range(200):
            (a if count % 2 else b).realtime.publish([truth.commit(room)])
        await until(lambda: len(ann.seqs(room)) == 200 and len(ben.seqs(room)) == 200)
        assert ann.seqs(room) == ben.seqs(room) == list(range(2, 202))
        assert b.realtime.bus.counters.forged == 0
        await ann.leave()
        await ben.leave()
