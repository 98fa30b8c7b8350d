"""A client that has nothing but a WebSocket."""

import asyncio
import json
from typing import Any

import aiohttp


class Plain:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.facts: list[dict[str, Any]] = []

    async def ask(self, event: str, data: Any, ns: str | None = None) -> dict[str, Any]:
        frame = {"id": event, "event": event, "data": data} | ({"ns": ns} if ns else {})
        await self.socket.send_str(json.dumps(frame))
        return await self.read(until=event)

    async def read(self, until: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while True:
                frame: dict[str, Any] = json.loads(await self.socket.receive_str())
                if frame.get("id") == until:
                    return frame
                self.facts.append(frame)
                if frame.get("event") == until:
                    return frame
