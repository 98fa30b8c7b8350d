"""Outbound webhooks: `python -m benchmarks.webhooks [--events N] [--endpoints N] [--hanging N]`.

Three figures, with a local sink and PostgreSQL on the same machine:

* planning: from outbox rows to events and deliveries;
* delivering: claims, signed requests over kept connections, attempts written down; CPU of the
  worker for each delivery;
* fairness: some endpoints hang, and how long the others' deliveries take from the commit on.
"""

import argparse
import asyncio
import multiprocessing
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

import uvloop
from rich.progress import track

from chatserver.kernel.principal import Principal
from chatserver.reactions import LATER
from chatserver.webhooks.endpoints.models import CHANNEL
from chatserver.webhooks.endpoints.schemas import CreateEndpoint
from tests.support.servers import Database, Servers
from tests.support.talk import Talk
from workers.deliveries import Lane
from workers.outbox import Dispatcher

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
PARALLEL = 64
# As many events are enough for how fast it is.
WARM = 500


class Sink(asyncio.Protocol):
    """Answers 200 to every request; at `/hang…` never."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport  # uvloop's, which is no subclass of asyncio's
        self.taken = b""

    def data_received(self, data: bytes) -> None:
        self.taken += data
        while (end := self.taken.find(b"\r\n\r\n")) >= 0:
            head = self.taken[:end].lower()
            at = head.index(b"content-length:") + 15
            length = int(head[at:].split(b"\r\n", 1)[0])
            if len(self.taken) < end + 4 + length:
                return
            self.taken = self.taken[end + 4 + length :]
            if not head.startswith(b"post /hang"):
                self.transport.write(ANSWER)


def sink(listening: socket.socket) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, sock=listening)
        await server.serve_forever()

    uvloop.run(serve())


@asynccontextmanager
async def sinking() -> AsyncIterator[str]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listening.getsockname()[1]
    process: BaseProcess = multiprocessing.get_context("fork").Process(
        target=sink, args=(listening,), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()


def unhindered(database: Database) -> Talk:
    """Services that let one client have any number of endpoints on this machine."""
    return Talk(
        database,
        allow_private_addresses=True,
        webhooks={
            "connections_per_host": 0,
            "endpoints_per_host": 10_000,
            "endpoints_per_client": 10_000,
        },
    )


async def main(database: Database, options: argparse.Namespace) -> None:
    async with sinking() as url:
        talk = unhindered(database)
        await talk.start()
        try:
            await measure(talk, url, options)
        finally:
            await talk.stop()


async def measure(talk: Talk, url: str, options: argparse.Namespace) -> None:
    hooks = talk.container.webhooks
    master = await talk.client("acme")
    room = await talk.room(await talk.user(master, "ann"))
    ids = [await endpoint(talk, master, f"{url}/hook/{n}") for n in range(options.endpoints)]
    await talk.run("update delivery_target set is_proven = true, concurrency = 8")
    dispatcher = Dispatcher(
        talk.container.open(lambda work: work), LATER, poll_s=1, together=(hooks.plan,)
    )
    warm = min(options.events, WARM)
    await say(talk, master, room.id, warm)
    began, cpu = time.monotonic(), time.process_time()
    await dispatcher.dispatch_all()
    total = warm * len(ids)
    report("planning", total, time.monotonic() - began, time.process_time() - cpu)

    lane = Lane(channel=CHANNEL, queue=hooks.queue, sender=hooks.sender, notes=hooks.notes)
    hooks.wake_here = lane.wake
    began, cpu = time.monotonic(), time.process_time()
    running = asyncio.create_task(lane.run())
    await all_delivered(talk, total)
    report("delivering", total, time.monotonic() - began, time.process_time() - cpu)
    loaded, recorded = lane.batches
    print(f"  on average {loaded:.0f} were loaded and {recorded:.0f} recorded at once")

    hanging = set(ids[: options.hanging])
    await talk.run(
        "update webhook_endpoint set url = replace(url, '/hook/', '/hang/') where id = any ($1)",
        list(hanging),
    )
    dispatching = asyncio.create_task(dispatcher.run())
    began = time.monotonic()
    others = options.events * (len(ids) - len(hanging))
    steps = range(0, options.events, options.rate)
    for start in track(steps, description="while some hang"):
        await say(talk, master, room.id, min(options.rate, options.events - start))
        dispatcher.wake()
        await asyncio.sleep(max(0.0, began + (start // options.rate + 1) - time.monotonic()))
    await all_delivered(talk, total + others)
    rows = await talk.rows(
        "select percentile_disc(array[0.5, 0.99, 1]) within group (order by"
        " extract(epoch from d.settled_at - e.created_at)) as p from delivery d"
        " join webhook_event e on e.client_id = d.client_id and e.seq = d.source_seq"
        " where d.source_seq > $1 and d.state = 'delivered'",
        warm,
    )
    p50, p99, most = (float(each) * 1000 for each in rows[0]["p"])
    print(
        f"fairness: {options.rate} events/s to {len(ids)} endpoints of which {len(hanging)} hang:"
        f" the others' p50 {p50:.0f} ms, p99 {p99:.0f} ms, max {most:.0f} ms"
    )
    dispatcher.stop()
    await asyncio.gather(dispatching, lane.stop(grace_s=0.1))
    await running


async def endpoint(talk: Talk, master: Principal, url: str) -> UUID:
    async with talk.container.webhooks.open_endpoints() as endpoints:
        made = await endpoints.create(
            master, CreateEndpoint.model_validate({"url": url, "events": ["message.created"]})
        )
    return made.id


async def say(talk: Talk, master: Principal, room_id: UUID, count: int) -> None:
    for start in range(0, count, PARALLEL):
        sends: list[Any] = [
            talk.send(master, room_id, f"message {n}")
            for n in range(start, min(count, start + PARALLEL))
        ]
        await asyncio.gather(*sends)


async def all_delivered(talk: Talk, count: int) -> None:
    while True:
        rows = await talk.rows("select count(*) as n from delivery where state = 'delivered'")
        if rows[0]["n"] >= count:
            return
        await asyncio.sleep(0.05)


def report(what: str, count: int, seconds: float, cpu: float) -> None:
    print(
        f"{what}: {count} deliveries in {seconds:.2f} s: {count / seconds:.0f}/s,"
        f" {cpu / count * 1e6:.0f} us of CPU each"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--hanging", type=int, default=10)
    parser.add_argument("--rate", type=int, default=10)
    chosen = parser.parse_args()
    with Servers(tcp=True) as servers:
        uvloop.run(main(servers.fresh_database(), chosen))
