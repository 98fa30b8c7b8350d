"""People come, go and talk, while one node's line to Redis is hurt in every way."""

import asyncio
import random
from typing import Any

from tests.support.clients import CHAT, ROOMS, PythonDevice, all_see
from tests.support.lines import REPAIR_S, Line
from tests.support.logs import log_of, stays_of
from tests.support.nodes import eventually


class Traffic:
    """People of both nodes who talk, come and go at random in some rooms, reproducibly."""

    def __init__(self, line: Line, seed: int) -> None:
        self.line = line
        self.chance = random.Random(seed)
        self.names = [f"user-{at}" for at in range(6)]
        self.rooms: list[str] = []

    async def begin(self) -> None:
        scene = self.line.scene
        await scene.people("owner", *self.names)
        self.owner = await scene.device("owner", 1)
        self.devices = [await scene.device(name, at % 2) for at, name in enumerate(self.names)]
        for _ in range(3):
            self.rooms.append((await self.owner.create_room(*self.names[:2]))["id"])

    async def flow(self) -> None:
        await asyncio.gather(*(self._live(device) for device in self.devices))

    async def _live(self, device: PythonDevice) -> None:
        for at in range(50):
            ack = await self._act(device, f"{at}")
            codes = {"room.not_found", "room.not_member", "member.not_found"}
            assert ack["ok"] or ack["error"]["code"] in codes, ack
            await asyncio.sleep(self.chance.uniform(0, 0.2))

    async def _act(self, device: PythonDevice, text: str) -> dict[str, Any]:
        room = {"room_id": self.chance.choice(self.rooms)}
        someone = {**room, "user_id": self.chance.choice(self.names)}
        what = self.chance.random()
        if what < 0.7:
            message = {**room, "content": text, "client_msg_id": text}
            return await device.emit(CHAT, "message.send", message)
        if what < 0.8:
            return await device.emit(ROOMS, "room.leave", room)
        command = "room.invite" if what < 0.92 else "room.remove"
        return await self.owner.emit(ROOMS, command, someone)

    async def hurt(self) -> None:
        """Hurt the line in every way, again and again, until cancelled."""
        proxy = self.line.proxy
        while True:
            await asyncio.sleep(self.chance.uniform(0.2, 1.0))
            self.chance.choice([proxy.cut, proxy.blackhole, proxy.refuse])()
            await asyncio.sleep(self.chance.uniform(0.1, 2.0))
            proxy.heal()


async def test_a_line_that_is_hurt_again_and_again_leaves_no_hole(line: Line) -> None:
    """Everyone sees every fact of each of his stays, in order.

    Only a stay that began and ended while the node was deaf may be missing as a whole: by the time
    it is found, its facts are none of his business any more. `sync` tells that it was.
    """
    traffic = Traffic(line, seed=7)
    await traffic.begin()
    hurting = asyncio.create_task(traffic.hurt())
    await traffic.flow()
    hurting.cancel()
    line.proxy.heal()
    await eventually(line.is_healthy, within_s=REPAIR_S)

    for room_id in traffic.rooms:
        await traffic.owner.say(room_id, "the end")
        log = await log_of(line.scene.api, room_id)
        await all_see([traffic.owner], room_id, len(log), within_s=REPAIR_S)
        for device in traffic.devices:
            stays, is_in = stays_of(log, device.name, was_first=device.name in traffic.names[:2])
            allowed = stays[:-1] if is_in else stays

            def has_all(
                device: PythonDevice = device,
                room_id: str = room_id,
                stays: list[list[int]] = stays,
                allowed: list[list[int]] = allowed,
            ) -> bool:
                told = device.seqs(room_id)
                missed = [stay for stay in stays if stay in allowed and not set(stay) & set(told)]
                return told == [seq for stay in stays if stay not in missed for seq in stay]

            await eventually(
                has_all, within_s=REPAIR_S, why=f"{device.name}: {stays} {device.seqs(room_id)}"
            )
