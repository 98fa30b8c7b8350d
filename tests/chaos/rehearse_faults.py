"""Every fault of the guide under load: `make chaos`. It takes long: `make test` leaves it out."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos import doomed
from tests.chaos.checker import Truth
from tests.chaos.conftest import Protocol, Scale
from tests.chaos.nemesis import FAULTS, die_at, lose_all, restart_postgres
from tests.chaos.rehearsal import RATE, finish
from tests.chaos.stage import on_stage
from tests.support.nodes import eventually
from tests.support.servers import Servers

pytestmark = [pytest.mark.js, pytest.mark.timeout(600)]

# Times 15 kB: beyond what the kernel takes for a client that doesn't read.
MORE_THAN_BUFFERS = 700
# Of each tenant, beside those that follow the protocol's rules.
STOCK = 2
UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# How many seconds each lasts, and with --full.
SECONDS: dict[str, tuple[float, float]] = {
    "kill -9 of a node": (3, 30),
    "SIGSTOP of a node": (15, 30),
    "Redis killed": (20, 40),
    "Redis flushed": (5, 20),
    "Redis half-open for one node": (60, 60),
    "subscribers kicked": (5, 20),
    "a slow subscriber kicked": (5, 20),
    "PostgreSQL restarted": (5, 30),
    "rolling restart": (3, 20),
    "every client cut off": (0, 20),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_is_lost(
    servers: Servers, history: Path, protocol: Protocol, name: str, seed: int, scale: Scale
) -> None:
    async with on_stage(servers, history, seed=seed, nodes=scale.nodes, users=6, rooms=4) as stage:
        stage.load(RATE)
        await asyncio.sleep(2)
        lasts = scale.seconds(*SECONDS[name])
        await FAULTS[name](stage, lasts)
        verdict = await finish(f"{name}, {lasts:.0f} s", seed, stage, protocol)
        # Nothing else broke: whoever asked to be recovered was.
        assert name != "every client cut off" or verdict.recoveries > 0


@pytest.mark.parametrize("place", doomed.PLACES)
async def test_a_node_that_dies_between_two_lines_loses_nothing(
    servers: Servers, history: Path, protocol: Protocol, place: str, seed: int, scale: Scale
) -> None:
    async with on_stage(servers, history, seed=seed, nodes=scale.nodes, users=6, rooms=4) as stage:
        stage.load(RATE)
        await asyncio.sleep(1)
        note = await die_at(stage, place)
        await finish(f"dies {place}", seed, stage, protocol)
        assert note["place"] == place
        assert (place not in doomed.TOLD) or note["flushed"] > 0
        # That it died there and nowhere else: what of these was stored before, and what the retries
        # were told. (A retry that is slow has a retry, so nothing is said of a first one.)
        truth = await Truth.read(stage.database.admin_url)
        is_stored = place != doomed.UNSTORED
        for send in note["sends"]:
            assert (truth.stored_at[send] < note["at"]) == is_stored
        if is_stored:
            retried = {
                entry["cmid"]: entry["duplicate"]
                for entry in stage.swarm.read()
                if entry["op"] == "send" and entry["status"] == "ok"
            }
            assert {retried[send] for send in note["sends"]} == {True}


async def test_redis_away_for_all_is_degraded_and_not_unready(
    servers: Servers, history: Path, seed: int, scale: Scale
) -> None:
    async with on_stage(servers, history, seed=seed, nodes=scale.nodes) as stage:
        stage.load(10)
        await FAULTS["Redis killed"](stage, 8)
        await stage.calm()
        names = {node.name for node in stage.nodes}
        assert {name: stage.unready_s(name) for name in names} == dict.fromkeys(names, 0)
        degraded = [state for state in stage.states if state.body.get("status") == "degraded"]
        assert {state.node for state in degraded} == names
        assert not (await stage.verdict()).faults


async def test_without_postgres_nobody_is_acked_and_nobody_gets_in(
    servers: Servers, history: Path, seed: int, protocol: Protocol, scale: Scale
) -> None:
    away_s = scale.seconds(8 / scale.pace, 30)
    async with on_stage(servers, history, seed=seed, nodes=scale.nodes) as stage:
        stage.load(RATE)
        tenant = stage.tenants[0]
        fault = asyncio.create_task(restart_postgres(stage, away_s))
        await asyncio.sleep(3)
        before = await stage.swarm.do("connected")
        refused = await stage.swarm.do(
            "try_connect", url=stage.nodes[0].url, key=tenant.keys[tenant.users[0]]
        )
        status, _ = await stage.nodes[0].health()
        assert (refused["connected"], status) == (False, 503)
        # Sockets that were open stay so.
        assert before == len(stage.canaries)
        await fault
        await finish(f"PostgreSQL away for {away_s:.0f} s", seed, stage, protocol)


async def test_a_client_that_never_reads_harms_nobody(
    servers: Servers, history: Path, protocol: Protocol, seed: int
) -> None:
    async with on_stage(servers, history, seed=seed) as stage:
        tenant = stage.tenants[0]
        name = f"{tenant.canary}-deaf"
        key = (await tenant.api.post(f"/users/{name}/login", {})).ok()["key"]
        members = {"user_ids": [name]}
        await tenant.api.post(f"/rooms/{tenant.rooms[0]}/members", members)
        async with _never_reading(stage.nodes[0].url, key) as is_closed:
            stage.load(RATE)
            big = "x" * 15_000
            for at in range(MORE_THAN_BUFFERS):
                body = {
                    "content": f"{tenant.canary} {big}",
                    "client_msg_id": f"big-{at}",
                    "sender_id": tenant.users[0],
                }
                (await tenant.api.post(f"/rooms/{tenant.rooms[0]}/messages", body)).ok()
            await eventually(is_closed, why="the server gave the socket up")
        await finish("a client that never reads", seed, stage, protocol)


@pytest.mark.timeout(1500)
async def test_thousands_of_clients_come_back_at_once(
    servers: Servers, history: Path, protocol: Protocol, seed: int, scale: Scale
) -> None:
    async with on_stage(
        servers,
        history,
        seed=seed,
        nodes=scale.nodes,
        users=scale.clients // 2 - STOCK,
        rooms=1,
        stock=STOCK,
    ) as stage:
        stage.load(5)
        await lose_all(stage, 0)
        began = time.monotonic()
        await stage.connected(within_s=120)
        took = time.monotonic() - began
        name = f"{scale.clients} clients at once, back in {took:.0f} s"
        await finish(name, seed, stage, protocol)


async def test_membership_changes_while_a_node_is_deaf(
    servers: Servers, history: Path, protocol: Protocol, seed: int, scale: Scale
) -> None:
    async with on_stage(servers, history, seed=seed, nodes=scale.nodes) as stage:
        tenant = stage.tenants[0]
        # He is alone on his node, with nobody of the room that he is invited to.
        await stage.add(tenant, f"{tenant.canary}-lonely", node=1)
        lonely = f"{tenant.canary}-lonely"
        await tenant.api.post(f"/rooms/{tenant.rooms[0]}/members", {"user_ids": [lonely]})
        # Those on the first node; see `Stage.build`.
        here = tenant.users[:: scale.nodes]
        room = (await tenant.api.post("/rooms", {"type": "group", "member_ids": here})).ok()["id"]
        stage.load(RATE)
        line = stage.lines["b"]
        line.blackhole()
        await asyncio.sleep(1)
        (await tenant.api.post(f"/rooms/{room}/members", {"user_ids": [lonely]})).ok()
        (await tenant.api.delete(f"/rooms/{tenant.rooms[0]}/members/{lonely}")).ok()
        for _ in range(10):
            await stage.send(tenant, room, here[0])
        await asyncio.sleep(scale.seconds(20, 40))
        line.heal()
        healed = time.monotonic()

        async def both_took_effect() -> bool:
            heads = (await stage.swarm.do("heads"))[lonely]
            return heads.get(room, 0) >= 11 and tenant.rooms[0] not in heads

        await eventually(both_took_effect, within_s=20, why="both changes took effect")
        took = time.monotonic() - healed
        await finish(f"members changed, bus cut; {took:.0f} s", seed, stage, protocol)


async def test_a_failover_that_rewinds_the_log_makes_everyone_reload(
    servers: Servers, history: Path, protocol: Protocol, seed: int
) -> None:
    with Servers(tcp=True) as own:
        async with on_stage(own, history, seed=seed) as stage:
            stage.load(RATE)
            await asyncio.sleep(2)
            postgres = own.postgres
            data = own.directory / "postgres"
            postgres.stop()
            _copy(data, own.directory / "copy")
            postgres.start()
            await asyncio.sleep(5)
            await stage.calm()
            postgres.kill()
            shutil.rmtree(data)
            _restore(own.directory / "copy", data)
            postgres.start()
            stage.load(RATE)
            await asyncio.sleep(15)
            await finish("a failover that rewinds", seed, stage, protocol, rewound=True)


def _copy(data: Path, copy: Path) -> None:
    subprocess.run(["cp", "-a", str(data), str(copy)], check=True)


def _restore(copy: Path, data: Path) -> None:
    """As a standby that was behind is promoted: the copy goes on, on a timeline of its own."""
    owner = copy.stat()
    copy.rename(data)
    signal_file = data / "recovery.signal"
    signal_file.touch()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")


@contextlib.asynccontextmanager
async def _never_reading(url: str, key: str) -> AsyncIterator[Callable[[], bool]]:
    """A socket with a tiny window that connects, and from then on only says that it lives."""
    loop = asyncio.get_running_loop()
    where = urlsplit(url)
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.setblocking(False)
        await loop.sock_connect(line, (where.hostname, where.port))
        await loop.sock_sendall(line, UPGRADE)
        await _until(line, b"0{")
        await loop.sock_sendall(line, _frame(b'40/chat,{"token":"%b"}' % key.encode()))
        await _until(line, b"session.ready")

        def is_closed() -> bool:
            try:
                line.send(_frame(b"3"))
            except BlockingIOError:
                return False
            except OSError:
                return True
            return False

        yield is_closed


def _frame(text: bytes) -> bytes:
    return b"\x81" + bytes([0x80 | 126]) + len(text).to_bytes(2, "big") + b"\0\0\0\0" + text


async def _until(line: socket.socket, wanted: bytes) -> None:
    got = b""
    while wanted not in got:
        more = await asyncio.get_running_loop().sock_recv(line, 4096)
        assert more, got
        got += more
