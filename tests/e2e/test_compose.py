"""The services of docker-compose.yml as processes: its commands, its variables, its nginx.

Only addresses differ, since here no container has a name. `make containers` runs it.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.clients import CHAT, ROOMS, PythonDevice
from tests.support.nginx import free_port, nginx
from tests.support.nodes import ROOT, START_S, Process, eventually
from tests.support.object_stores import ACCESS, bucket_at, s3_server
from tests.support.scene import on_stage
from tests.support.servers import Database, Servers

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
(IMAGE_COMMAND,) = re.findall(r"^CMD (\[.+\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
SECRETS = ("SECRET_KEYS", "KEY_PEPPER", "OPERATOR_KEY", "APP_PASSWORD", "OWNER_PASSWORD")


def filled(text: str, given: Mapping[str, str]) -> str:
    """Fill in variables as compose does: what is given, else the default."""

    def value(found: re.Match[str]) -> str:
        name, how, rest = found[1], found[2] or "", found[3] or ""
        assert how != ":?" or name in given, f"{name} {rest}"
        return given.get(name) or rest

    return re.sub(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}", value, str(text))


class Composition:
    """Where the services are on this machine."""

    def __init__(self, database: Database, objects: str, directory: Path) -> None:
        self._directory = directory
        settings = database.settings()
        self.ports = {"web-a": free_port(), "web-b": free_port()}
        self.given = {
            **{
                name: secrets.token_hex(32)
                for name in ("SECRET_KEYS", "KEY_PEPPER", "OPERATOR_KEY")
            },
            **{name: secrets.token_hex(8) for name in ("APP_PASSWORD", "OWNER_PASSWORD")},
            "S3_ACCESS_KEY_ID": ACCESS["access_key_id"],
            "S3_SECRET_ACCESS_KEY": ACCESS["secret_access_key"],
            "S3_ENDPOINT_URL": objects,
            "S3_PUBLIC_BASE_URL": objects,
            "S3_BUCKET": bucket_at(objects),
            "TRUSTED_PROXIES": "127.0.0.1/32",
        }
        self._elsewhere = {
            name: settings[name] for name in ("DATABASE_URL", "MIGRATOR_DATABASE_URL", "REDIS_URL")
        }

    def process(self, name: str) -> Process:
        service = SERVICES[name]
        environment = {
            key: filled(each, self.given) for key, each in service["environment"].items()
        }
        environment |= {key: each for key, each in self._elsewhere.items() if key in environment}
        command: list[str] = service.get("command") or yaml.safe_load(IMAGE_COMMAND)
        if name in self.ports:
            environment["NODE_URL"] = f"http://127.0.0.1:{self.ports[name]}"
            command = [str(self.ports[name]) if part == "8000" else part for part in command]
        environment["PATH"] = os.environ["PATH"]
        return Process(name, ["chatserver", *command], environment, self._directory)


@pytest.fixture
def composition(servers: Servers, tmp_path: Path) -> Iterator[Composition]:
    database = servers.empty_database()
    with s3_server() as objects:
        yield Composition(database, objects, tmp_path)
    servers.drop(database)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_what_compose_starts_serves_stock_clients_on_both_transports(
    composition: Composition,
) -> None:
    started: list[Process] = []

    def start(name: str) -> Process:
        started.append(composition.process(name))
        started[-1].spawn()
        return started[-1]

    try:
        migrate = start("migrate")
        await eventually(lambda: not migrate.is_running, within_s=START_S, why="it is migrated")
        assert "revision" in migrate.last_words()
        webs = [start("web-a"), start("web-b")]
        for name in ("worker", "scheduler"):
            part = start(name)
            await eventually(lambda it=part: it.said(f"{it.name}_ready"), within_s=START_S)  # type: ignore[misc]
        for web in webs:
            await eventually(lambda it=web: it.said("serving"), within_s=START_S)  # type: ignore[misc]
        with nginx(*(f"http://127.0.0.1:{port}" for port in composition.ports.values())) as front:
            await _talk(front, composition.given["OPERATOR_KEY"])
        for part in started[1:]:
            assert await part.terminate() == 0
    finally:
        for part in started:
            part.reap()


class _Front:
    def __init__(self, url: str) -> None:
        self.url = url


async def _talk(front: str, operator_key: str) -> None:
    async with on_stage([_Front(front)], operator_key) as scene:  # type: ignore[list-item]
        devices = []
        for transport in ("polling", "websocket"):
            for name in ("alice", "bob"):
                key = await scene.key_of(name)
                device = scene.keep(PythonDevice(name, front, key, transports=[transport]))
                await device.connect(ROOMS, CHAT)
                devices.append(device)
        room = await devices[0].create_room("bob")
        sent = await asyncio.gather(*(each.say(room["id"], each.name) for each in devices))
        for device in devices:
            await device.has_seq(room["id"], max(each["seq"] for each in sent))
            assert sorted(device.texts(room["id"])) == ["alice", "alice", "bob", "bob"]
