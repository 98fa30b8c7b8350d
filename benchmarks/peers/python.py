"""python-socketio with the smallest application that does the work; prints its port.

`python python.py uvloop|asyncio stock|ours`: `ours` is `chatserver.realtime.create_server`, the
bare engine of this project beneath the same API.
"""

import asyncio
import importlib
import os
import sys
from typing import Any

import socketio
import uvloop
from aiohttp import web

NAMESPACES = ("/rooms", "/chat", "/notifications")


def make(engine: str, redis: str | None) -> Any:
    manager = socketio.AsyncRedisManager(redis) if redis else None
    if engine == "ours":
        realtime = importlib.import_module("chatserver.realtime")
        return realtime.create_server(namespaces=NAMESPACES)
    return socketio.AsyncServer(
        async_mode="aiohttp",
        client_manager=manager,
        namespaces=list(NAMESPACES),
        transports=["websocket"],
        cors_allowed_origins="*",
    )


def handle(sio: Any, namespace: str) -> None:
    async def connect(sid: str, _: dict[str, Any], auth: dict[str, Any] | None) -> None:
        for room in (auth or {}).get("rooms", ()):
            await sio.enter_room(sid, room, namespace=namespace)

    async def say(_: str, payload: dict[str, Any]) -> dict[str, Any]:
        await sio.emit("said", payload, room=payload["room_id"], namespace=namespace)
        return {"ok": True}

    sio.on("connect", connect, namespace=namespace)
    sio.on("say", say, namespace=namespace)


async def serve(engine: str) -> None:
    sio = make(engine, os.environ.get("BENCH_REDIS"))
    for namespace in NAMESPACES:
        handle(sio, namespace)
    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    port = runner.addresses[0][1]
    print(f"port {port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    loop, engine_name = sys.argv[1:]
    (uvloop.run if loop == "uvloop" else asyncio.run)(serve(engine_name))
