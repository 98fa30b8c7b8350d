"""Nodes whose line to Redis can be hurt."""

from tests.support.clients import PythonDevice
from tests.support.nodes import Node
from tests.support.proxy import Proxy
from tests.support.scene import Scene

# Two missed heartbeats, a look at the log, and air for two busy cores.
REPAIR_S = 45.0


class Line:
    """Two nodes; the line of one of them to Redis can be hurt."""

    def __init__(self, proxy: Proxy, nodes: list[Node], scene: Scene) -> None:
        self.proxy = proxy
        self.cut_off, self.other = nodes
        self.scene = scene

    async def is_healthy(self) -> bool:
        return await self.cut_off.is_ready()


async def say_many(device: PythonDevice, room_id: str, texts: list[str]) -> None:
    for text in texts:
        await device.say(room_id, text)
