"""One tenant on some nodes: its keys, its people, and everyone who is connected."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from tests.support.clients import CHAT, ROOMS, Api, Device, PythonDevice
from tests.support.nodes import Node

AnyDevice = TypeVar("AnyDevice", bound=Device)


class Scene:
    def __init__(
        self, http: aiohttp.ClientSession, nodes: Sequence[Node], client: dict[str, Any]
    ) -> None:
        self.http = http
        self.nodes = nodes
        self.client = client
        self.master_key: str = client["master_key"]
        self.api = Api(http, nodes[0].url, self.master_key)
        self.devices: list[Device] = []
        self._keys: dict[str, str] = {}

    async def login(self, name: str, **more: Any) -> dict[str, Any]:
        """Issue a key of a new device; everything of the answer."""
        issued = await self.api.post(f"/users/{name}/login", more)
        made: dict[str, Any] = issued.ok()
        return made

    async def key_of(self, name: str) -> str:
        """Give the one key that these tests use for a user, and make the user."""
        if name not in self._keys:
            self._keys[name] = (await self.login(name))["key"]
        return self._keys[name]

    async def people(self, *names: str) -> None:
        for name in names:
            await self.key_of(name)

    async def as_user(self, name: str, node: int = 0) -> Api:
        return Api(self.http, self.nodes[node].url, await self.key_of(name))

    async def device(
        self,
        name: str,
        node: int = 0,
        *,
        namespaces: Sequence[str] = (ROOMS, CHAT),
        **options: Any,
    ) -> PythonDevice:
        """Connect a user with python-socketio."""
        made = PythonDevice(name, self.nodes[node].url, await self.key_of(name), **options)
        self.devices.append(made)
        await made.connect(*namespaces)
        return made

    def keep(self, device: AnyDevice) -> AnyDevice:
        """Close a device of any other kind at the end, too."""
        self.devices.append(device)
        return device

    async def close(self) -> None:
        for device in self.devices:
            await device.close()


@asynccontextmanager
async def on_stage(nodes: Sequence[Node], operator_key: str) -> AsyncIterator[Scene]:
    """Make a tenant of one's own on nodes that run."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        operator = Api(http, nodes[0].url, operator_key)
        name = f"tenant-{secrets.token_hex(4)}"
        made = await operator.post("/clients", {"name": name})
        scene = Scene(http, nodes, made.ok())
        try:
            yield scene
        finally:
            await scene.close()
