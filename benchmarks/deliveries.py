"""Deliveries: `python -m benchmarks.deliveries [webhook] [email] [push] [slow] [--count N]`.

What one worker process does in a second, with sinks and PostgreSQL on the same machine, and what a
delivery costs in CPU: the worker's own, and PostgreSQL's. On a machine that does other things too
only the CPU says something: `per core` is what one core would do with that.

* webhook, email, push: claims, sends over kept connections, attempts written down;
* slow: a thousand addresses that take five seconds each, at once in one process.

`--profile FILE` writes a profile of the first kind.
"""

import argparse
import asyncio
import cProfile
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.webhooks import Sink as WebhookSink
from benchmarks.webhooks import endpoint, say, unhindered
from chatserver.infra.web_push import VapidKey, text_of
from chatserver.kernel.principal import Principal
from chatserver.notifications.devices.schemas import DevicePut
from chatserver.notifications.requests.schemas import SendNotification
from chatserver.providers.schemas import CreateProvider
from chatserver.reactions import LATER
from chatserver.webhooks.endpoints.models import CHANNEL
from tests.support.servers import Database, Servers
from tests.support.talk import Talk
from workers.deliveries import Lane
from workers.notifications import NotificationLanes
from workers.outbox import Dispatcher

CLIENTS = 20
SLOW = 1000
SLOW_S = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")


class MailSink(asyncio.Protocol):
    """Takes every mail; knows just enough of SMTP for that."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.taken = b""
        self.in_mail = False
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.taken += data
        answers: list[bytes] = []
        while self.taken:
            end = b"\r\n.\r\n" if self.in_mail else b"\r\n"
            line, found, rest = self.taken.partition(end)
            if not found:
                break
            self.taken = rest
            answers.append(self.answer(line))
        if answers:
            self.transport.write(b"".join(answers))

    def answer(self, line: bytes) -> bytes:
        if self.in_mail:
            self.in_mail = False
            return b"250 2.0.0 queued\r\n"
        word = line[:4].upper()
        self.in_mail = word == b"DATA"
        if self.in_mail:
            return b"354 go on\r\n"
        if word == b"EHLO":
            return b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
        return b"221 bye\r\n" if word == b"QUIT" else b"250 2.0.0 ok\r\n"


class SlowSink(WebhookSink):
    """Answers after `SLOW_S`."""

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(SLOW_S, super().data_received, data)


def serve(protocol: Callable[[], asyncio.Protocol], listening: socket.socket) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(protocol, sock=listening)
        await server.serve_forever()

    uvloop.run(forever())


@asynccontextmanager
async def sinking(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[int]:
    """Run a sink in a process of its own; gives its port."""
    listening = socket.create_server(("", 0), backlog=4096)
    process: BaseProcess = multiprocessing.get_context("fork").Process(
        target=serve, args=(protocol, listening), daemon=True
    )
    process.start()
    try:
        yield listening.getsockname()[1]
    finally:
        process.terminate()


def postgres_cpu() -> float:
    """Give the CPU seconds of all PostgreSQL processes that this one started."""
    spent = 0.0
    parents = {os.getpid()}
    stats = {}
    for found in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = found.read_text().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        stats[int(found.parent.name)] = (name.partition("(")[2], int(fields[1]), fields)
    for _ in range(4):
        parents |= {pid for pid, (_, parent, _) in stats.items() if parent in parents}
    for pid in parents:
        if pid in stats and stats[pid][0].startswith("postgres"):
            fields = stats[pid][2]
            # Its own, and that of its children that are gone.
            spent += sum(int(fields[at]) for at in (11, 12, 13, 14)) / _TICKS
    return spent


class Measured:
    """Time, and CPU, from here to `report`."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.cpu, self.postgres = time.process_time(), postgres_cpu()

    def report(self, what: str, count: int) -> None:
        seconds = time.monotonic() - self.began
        own = (time.process_time() - self.cpu) / count * 1e6
        of_postgres = (postgres_cpu() - self.postgres) / count * 1e6
        print(
            f"{what}: {count} in {seconds:.2f} s: {count / seconds:.0f}/s; CPU each: worker"
            f" {own:.0f} us, PostgreSQL {of_postgres:.0f} us; per core of worker"
            f" {1e6 / own:.0f}/s"
        )


async def ended(talk: Talk, count: int) -> None:
    while True:
        [row] = await talk.rows("select count(*) as n from delivery where settled_at is not null")
        if row["n"] >= count:
            return
        await asyncio.sleep(0.1)


@asynccontextmanager
async def working(talk: Talk, profile: cProfile.Profile | None) -> AsyncIterator[list[Lane]]:
    hooks, sending = talk.container.webhooks, talk.container.sending
    slots = talk.container.settings.webhooks.slots
    lane = Lane(
        channel=CHANNEL, queue=hooks.queue, sender=hooks.sender, notes=hooks.notes, slots=slots
    )
    others = NotificationLanes(
        queue=sending.queue, senders=sending.senders, notes=sending.notes, slots=slots
    )
    lanes = [lane, *others.lanes]
    running = [asyncio.create_task(each.run()) for each in lanes]
    if profile is not None:
        profile.enable()
    try:
        yield lanes
    finally:
        if profile is not None:
            profile.disable()
        await asyncio.gather(*(each.stop(grace_s=0.1) for each in lanes))
        await asyncio.gather(*running)


async def webhook(talk: Talk, count: int, profile: cProfile.Profile | None) -> None:
    async with sinking(WebhookSink) as port:
        await planned(talk, count // 100, 100, f"http://127.0.0.1:{port}/hook")
        measured = Measured()
        async with working(talk, profile) as lanes:
            await ended(talk, count // 100 * 100)
            measured.report("webhook", count // 100 * 100)
            loaded, recorded = lanes[0].batches
            print(f"  on average {loaded:.0f} were loaded and {recorded:.0f} recorded at once")


async def planned(talk: Talk, events: int, endpoints: int, url: str) -> None:
    """Make deliveries of events to endpoints, which have proven themselves."""
    master = await talk.client("acme")
    room = await talk.room(await talk.user(master, "ann"))
    for n in range(endpoints):
        await endpoint(talk, master, f"{url}/{n}")
    await talk.run("update delivery_target set is_proven = true, concurrency = 8")
    hooks = talk.container.webhooks
    dispatcher = Dispatcher(
        talk.container.open(lambda work: work), LATER, poll_s=1, together=(hooks.plan,)
    )
    await say(talk, master, room.id, events)
    await dispatcher.dispatch_all()


async def slow(talk: Talk, _: int, profile: cProfile.Profile | None) -> None:
    async with sinking(SlowSink) as port:
        # Nobody may have more than half of a worker's places.
        masters = [await talk.client(f"c{n}") for n in range(4)]
        await notify(
            talk,
            masters,
            SLOW,
            recipients=lambda n: {"url": f"http://127.0.0.1:{port}/slow/{n}"},
            channels={"webhook": {"data": {}}},
        )
        most = threads = 0
        measured = Measured()
        async with working(talk, profile) as lanes:
            waiting = asyncio.create_task(ended(talk, SLOW))
            while not waiting.done():
                most = max(most, sum(lane.running for lane in lanes))
                threads = max(threads, threading.active_count())
                await asyncio.sleep(0.01)
            measured.report(f"slow ({SLOW} addresses that take {SLOW_S:g} s)", SLOW)
        print(f"  at most {most} were being sent at once, by {threads} threads")


async def notify(talk: Talk, masters: list[Principal], count: int, **members: Any) -> None:
    """Promise so many deliveries, evenly for some clients, a thousand at a time."""
    each = count // len(masters)
    recipients = members.pop("recipients")
    for master in masters:
        for start in range(0, each, 1000):
            names = [recipients(n) for n in range(start, min(each, start + 1000))]
            command = SendNotification.model_validate({**members, "recipients": names})
            async with talk.container.sending.open_notifications() as notifications:
                await notifications.send(master, command)


async def email(talk: Talk, count: int, profile: cProfile.Profile | None) -> None:
    async with sinking(MailSink) as port:
        masters = [await talk.client(f"c{n}") for n in range(CLIENTS)]
        config = {"host": "127.0.0.1", "port": port, "tls": "none", "from": "shop@example.org"}
        for n, master in enumerate(masters):
            # Accounts of their own: connections are shared by those that are the same.
            account = config | {"host": f"127.0.0.{n + 1}" if n else "127.0.0.1"}
            command = CreateProvider.model_validate(
                {"channel": "email", "kind": "smtp", "name": "sink", "config": config | account}
            )
            await talk.container.providers.checks.create(master, command)
        await talk.run("update delivery_target set is_proven = true")
        await notify(
            talk,
            masters,
            count,
            recipients=lambda n: {"email": f"bob{n}@example.net"},
            channels={"email": {"subject": "Your order", "text": "It is on its way.\n" * 20}},
        )
        measured = Measured()
        async with working(talk, profile):
            await ended(talk, count)
            measured.report(f"email ({CLIENTS} accounts of 2 connections)", count)


async def push(talk: Talk, count: int, profile: cProfile.Profile | None) -> None:
    async with sinking(WebhookSink) as port:
        masters = [await talk.client(f"c{n}") for n in range(CLIENTS)]
        for master in masters:
            people = await talk.users(master, *(f"p{n}" for n in range(count // CLIENTS)))
            for person in people:
                keys = {"p256dh": VapidKey.new().public, "auth": text_of(os.urandom(16))}
                endpoint_url = f"http://127.0.0.1:{port}/push/{person.user_id}"
                command = DevicePut.model_validate(
                    {"kind": "web_push", "subscription": {"endpoint": endpoint_url, "keys": keys}}
                )
                async with talk.container.notifications.open_devices() as devices:
                    await devices.put(person, command)
        await notify(
            talk,
            masters,
            count,
            recipients=lambda n: {"user_id": f"p{n}"},
            channels={"push": {"title": "Your order", "body": "It is on its way."}},
        )
        await talk.run("update delivery_target set is_proven = true")
        measured = Measured()
        async with working(talk, profile):
            await ended(talk, count)
            measured.report("push", count)


WORKS = {"webhook": webhook, "email": email, "push": push, "slow": slow}


async def main(database: Database, work: str, options: argparse.Namespace) -> None:
    # Of CPU, not of time: others run here, too.
    profile = cProfile.Profile(time.process_time) if options.profile else None
    talk = unhindered(database)
    await talk.start()
    try:
        await WORKS[work](talk, options.count, profile)
    finally:
        await talk.stop()
    if profile is not None:
        profile.dump_stats(options.profile)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", default=list(WORKS), choices=[*WORKS, []])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--profile")
    chosen = parser.parse_args()
    with Servers(tcp=True) as servers:
        for name in chosen.works:
            uvloop.run(main(servers.fresh_database(), name, chosen))
