"""Stand-ins for the server's processes, and `chatserver dev` with them in place of the real ones.

Run as a program: `standins.py dev …` is the command under test, the others are its children.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from aiohttp import web

from chatserver.dev.command import run
from chatserver.dev.installation import Programs

MASTER_KEY = "standin-master"


def programs(directory: Path) -> Programs:
    def command(name: str) -> list[str]:
        return [sys.executable, __file__, name, "--notes", str(directory)]

    return Programs(
        migrate=command("migrate"),
        serve=command("serve"),
        worker=command("worker"),
        scheduler=command("scheduler"),
    )


async def _ready(_: web.Request) -> web.Response:
    return web.json_response({"status": "ready", "degraded": []})


async def _make_client(request: web.Request) -> web.Response:
    if request.headers["Authorization"] != f"Bearer {os.environ['OPERATOR_KEY']}":
        return web.json_response({}, status=401)
    name = (await request.json())["name"]
    made = {"id": "c1", "slug": name, "name": name, "master_key": MASTER_KEY}
    return web.json_response(made, status=201)


async def _for_master(request: web.Request) -> web.Response:
    if request.headers["Authorization"] != f"Bearer {MASTER_KEY}":
        return web.json_response({}, status=401)
    return web.json_response({"key": f"key-of-{request.match_info.get('user')}"})


def serve(host: str, port: int) -> None:
    app = web.Application()
    app.router.add_get("/health/ready", _ready)
    app.router.add_post("/api/v1/clients", _make_client)
    app.router.add_get("/api/v1/rooms/all", _for_master)
    app.router.add_put("/api/v1/users/{user}", _for_master)
    app.router.add_post("/api/v1/users/{user}/login", _for_master)
    web.run_app(app, host=host, port=port, print=None)


def wait(*, stubborn: bool, with_child: bool) -> None:
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if with_child:
        subprocess.Popen(["sleep", "1000"])
    print("working", flush=True)
    while True:
        time.sleep(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, default=Path(".chatserver"))
    parser.add_argument("--notes", type=Path, default=Path())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reset", action="store_true")
    given = parser.parse_args()
    # A note makes the stand-in of that name misbehave: `worker.stubborn`, `migrate.fails`, …
    notes = {note.name for note in given.notes.iterdir()} if given.notes.is_dir() else set()
    with (given.notes / "starts").open("a") as starts:
        starts.write(f"{given.what}\n")
    if f"{given.what}.fails" in notes:
        sys.exit(f"{given.what} cannot work today")
    if given.what == "dev":
        sys.exit(
            run(
                given.data_dir,
                host=given.host,
                port=given.port,
                reset=given.reset,
                json=given.json,
                programs=programs(given.notes),
            )
        )
    elif given.what == "serve":
        serve(given.host, given.port)
    elif given.what in {"worker", "scheduler"}:
        wait(
            stubborn=f"{given.what}.stubborn" in notes,
            with_child=f"{given.what}.with_child" in notes,
        )


if __name__ == "__main__":
    main()
