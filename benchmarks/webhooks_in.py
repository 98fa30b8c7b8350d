"""Inbound webhooks: `python -m benchmarks.webhooks_in [--events N] [--at-once N] [--rate N]`.

A node of its own takes signed requests, whose rules nobody runs: how many a second, how long until
the answer (which says that they are committed), and how much CPU the node spends on each. First as
fast as they can be sent, then at a steady rate.
"""

import argparse
import asyncio
import hmac
import os
import secrets
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.support.clients import Api
from tests.support.nodes import Cluster, Node
from tests.support.servers import Database, Servers

SECRET = "It's a Secret to Everybody"
PAYLOAD = orjson.dumps(
    {
        "action": "opened",
        "order": {"id": 820982911946154500, "total": "59.90", "items": [{"sku": "A"}] * 20},
        "customer": {"id": "cust-7", "name": "Ann", "note": "x" * 800},
    }
)


def cpu_of(pid: int) -> float:
    """Give the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def prepared(node: Node, operator_key: str) -> str:
    """Make a client with a source; where its requests go."""
    async with aiohttp.ClientSession() as session:
        operator = Api(session, node.url, operator_key)
        client = (await operator.post("/clients", {"name": "Load"})).ok()
        master = Api(session, node.url, client["master_key"])
        action = {"type": "create_room", "external_id": "order-{{ $.order.id }}"}
        source = {
            "slug": "load",
            "scheme": "github",
            "secrets": [SECRET],
            "rules": [{"name": "ordered", "actions": [action]}],
        }
        made = (await master.post("/webhooks/sources", source)).ok()
    return f"{node.url}{made['path']}"


async def send(session: aiohttp.ClientSession, url: str) -> float:
    """Send one event; how many milliseconds its answer took."""
    mac = hmac.digest(SECRET.encode(), PAYLOAD, "sha256").hex()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Delivery": secrets.token_hex(8),
        "X-Hub-Signature-256": f"sha256={mac}",
    }
    began = time.monotonic()
    async with session.post(url, data=PAYLOAD, headers=headers) as answer:
        said = orjson.loads(await answer.read())
        assert (answer.status, said["duplicate"]) == (200, False), said
    return (time.monotonic() - began) * 1000


async def flood(session: aiohttp.ClientSession, url: str, events: int, at_once: int) -> list[float]:
    taken: list[float] = []

    async def one_after_another() -> None:
        while len(taken) < events:
            taken.append(await send(session, url))

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return taken


async def steady(session: aiohttp.ClientSession, url: str, events: int, rate: int) -> list[float]:
    began = time.monotonic()
    sending: list[asyncio.Task[float]] = []
    for number in range(events):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        sending.append(asyncio.create_task(send(session, url)))
    return list(await asyncio.gather(*sending))


def report(what: str, taken: list[float], seconds: float, cpu: float) -> None:
    taken.sort()
    p50, p99 = (taken[int(len(taken) * share)] for share in (0.5, 0.99))
    print(
        f"{what}: {len(taken) / seconds:.0f} events/s, answered in p50 {p50:.1f} p99 {p99:.1f}"
        f" max {taken[-1]:.1f} ms, {cpu / len(taken) * 1e6:.0f} us of the node's CPU each"
    )


async def measured(what: str, node: Node, sending: Any) -> None:
    began, cpu = time.monotonic(), cpu_of(node.pid)
    taken = await sending
    report(what, taken, time.monotonic() - began, cpu_of(node.pid) - cpu)


async def main(database: Database, options: argparse.Namespace) -> None:
    cluster = Cluster(database, RATE_LIMITS_ENABLED="false")
    try:
        (node,) = await cluster.nodes("a")
        url = await prepared(node, database.secrets.operator_key)
        connector = aiohttp.TCPConnector(limit=options.at_once * 4)
        async with aiohttp.ClientSession(connector=connector) as session:
            await flood(session, url, 200, options.at_once)
            await measured(
                f"{options.at_once} at once",
                node,
                flood(session, url, options.events, options.at_once),
            )
            await measured(
                f"{options.rate} a second",
                node,
                steady(session, url, options.events, options.rate),
            )
    finally:
        cluster.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rate", type=int, default=100)
    chosen = parser.parse_args()
    with Servers(tcp=True) as servers:
        asyncio.run(main(servers.fresh_database(), chosen))
