"""Does one noisy client slow another down? B's latency alone, and beside A at ten times its limit.

    python -m benchmarks.noisy_neighbour [--rounds 12] [--seconds 3] [--json FILE]

One node with embedded PostgreSQL and Valkey on this machine. B: users who each send two messages a
second. A: another client whose users send ten times what one key may, refused or not. What is
measured is the time from the send to its acknowledgement, which means committed. The goal: B's p99
beside A stays within twice its p99 alone.

A shouts from a process of its own, so that B's clock is not kept by whoever is busy shouting. As
that process takes CPU from the server, a third state is measured: B beside a process that burns as
much as A's does and sends nothing. What is left between the two is the server's doing. The three
take turns, in another order each round, and the figure is the median of the rounds.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import uvloop

from benchmarks.machine import cpu_s
from benchmarks.wire import Socket, Tally
from tests.support.nodes import ROOT, Cluster
from tests.support.servers import Servers

GOAL: Final = 2.0
# What a key may send: `Limits.messages_per_s`.
MESSAGES_PER_S: Final = 20
B_PER_S: Final = 2.0
SLICE_S: Final = 0.01
ALONE, BESIDE, BURNING = "B alone", "B beside A", "B beside a burner"


@dataclass
class Seat:
    """One user with one room."""

    key: str
    room: str


@dataclass
class State:
    """What was measured in one of the three states, round by round. Times in milliseconds."""

    name: str
    times: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)
    refused: int = 0
    server_cpu_s: float = 0.0
    seconds: float = 0.0
    shouted: dict[str, float] = field(default_factory=dict)

    def add(self, tally: Tally, cpu: float, seconds: float) -> None:
        times = sorted(it / 1e6 for it in tally.ack_ns)
        self.times.extend(times)
        self.p99s.append(percentile(times, 0.99))
        self.refused += tally.refused
        self.server_cpu_s += cpu
        self.seconds += seconds

    def summed(self) -> dict[str, Any]:
        times = sorted(self.times)
        return {
            "name": self.name,
            "sends": len(times),
            "p50_ms": round(percentile(times, 0.5), 2),
            "p99_ms": round(percentile(times, 0.99), 2),
            "p99_median_ms": round(statistics.median(self.p99s), 2),
            "p99s_ms": [round(it, 1) for it in self.p99s],
            "most_ms": round(times[-1], 2),
            "refused": self.refused,
            "server_cpu": round(self.server_cpu_s / self.seconds, 2),
            "shouted": self.shouted,
        }


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def seats(session: aiohttp.ClientSession, url: str, operator: str, name: str, users: int) -> (
    list[Seat]
):  # fmt: skip
    """Make a tenant with some users, each in a room of one's own."""

    async def send(method: str, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {key}"}
        async with session.request(
            method, f"{url}/api/v1{path}", json=body, headers=headers
        ) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found

    master = (await send("POST", "/clients", operator, {"name": name}))["master_key"]
    made = []
    for number in range(users):
        user = f"{name}-{number}"
        issued = await send("POST", f"/users/{user}/login", master, {"rotation": "explicit"})
        room = await send("POST", "/rooms", master, {"type": "group", "member_ids": [user]})
        made.append(Seat(issued["key"], room["id"]))
    return made


async def connected(port: int, found: list[Seat], tally: Tally) -> list[tuple[Socket, Seat]]:
    made = []
    for seat in found:
        socket = Socket(port, tally)
        await socket.connect([("/chat", {"token": seat.key})], ready=True)
        made.append((socket, seat))
    return made


async def speak(
    socket: Socket, seat: Seat, number: "itertools.count[int]", per_s: float, until: float
) -> int:
    """Send at a fixed rate, whatever comes back; give how many it were."""
    sent, due = 0, time.monotonic()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        own = next(number)
        more = f',"client_msg_id":"{os.getpid()}-{own}"'
        socket.write(socket.say(0, own, "message.send", seat.room, more))
        sent += 1
        due += 1 / per_s
    return sent


class Other:
    """A process that does something for as many seconds as it is told, and says what it did."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.noisy_neighbour", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    async def tell(self, **what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(what) + b"\n")
        self._process.stdin.flush()

    async def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        said: dict[str, Any] = orjson.loads(line)
        return said

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


async def shout() -> None:
    """Be A: connect, then send at ten times the limit whenever told to."""
    given = orjson.loads(await asyncio.to_thread(sys.stdin.readline))
    tally, number = Tally(), itertools.count()
    sockets = await connected(given["port"], [Seat(*it) for it in given["seats"]], tally)
    print(orjson.dumps({"ready": True}).decode(), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        tally.reset()
        for socket, _ in sockets:
            socket.forget()
        began, until = time.process_time(), time.monotonic() + orjson.loads(line)["seconds"]
        sent = sum(
            await asyncio.gather(*(speak(*each, number, given["per_s"], until) for each in sockets))
        )
        await asyncio.sleep(0.3)
        said = {
            "sent": sent,
            "accepted": tally.acks,
            "refused": tally.refused,
            "cpu_s": time.process_time() - began,
        }
        print(orjson.dumps(said).decode(), flush=True)


def burn() -> None:
    """Use a share of one core whenever told to."""
    for line in sys.stdin:
        told = orjson.loads(line)
        until = time.monotonic() + told["seconds"]
        began = time.process_time()
        while (now := time.monotonic()) < until:
            busy_until = time.process_time() + SLICE_S * told["share"]
            while time.process_time() < busy_until:
                pass
            time.sleep(max(0.0, now + SLICE_S - time.monotonic()))
        print(orjson.dumps({"cpu_s": time.process_time() - began}).decode(), flush=True)


class Bench:
    """B's sockets, and whoever is beside them."""

    def __init__(self, pid: int, tally: Tally, sockets: list[tuple[Socket, Seat]]) -> None:
        self._pid = pid
        self._tally = tally
        self._sockets = sockets
        self._number = itertools.count()
        self.states = {name: State(name) for name in (ALONE, BESIDE, BURNING)}

    async def round(self, state: State | None, seconds: float) -> None:
        self._tally.reset()
        for socket, _ in self._sockets:
            socket.forget()
        before, until = cpu_s([self._pid]), time.monotonic() + seconds
        await asyncio.gather(*(self._late(*each, until) for each in self._sockets))
        # The last ones are waited for.
        while any(socket.unanswered for socket, _ in self._sockets):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)
        if state is not None:
            state.add(self._tally, cpu_s([self._pid]) - before, seconds)

    async def _late(self, socket: Socket, seat: Seat, until: float) -> None:
        # Spread over the interval: users don't speak in chorus.
        place = hash(seat.room) % 1000 / 1000
        await asyncio.sleep(place / B_PER_S)
        await speak(socket, seat, self._number, B_PER_S, until)


async def run(
    rounds: int, seconds: float, users: int, noisy_users: int, *, durable: bool
) -> list[dict[str, Any]]:
    with Servers(tcp=True, durable=durable) as servers:
        database = servers.fresh_database()
        cluster = Cluster(database, LIMITS_FACTOR="1")
        noisy, burner = Other("--shout"), Other("--burn")
        try:
            (node,) = await cluster.nodes("a")
            async with aiohttp.ClientSession() as session:
                operator = database.secrets.operator_key
                quiet = await seats(session, node.url, operator, "quiet", users)
                loud = await seats(session, node.url, operator, "noisy", noisy_users)
            tally = Tally()
            bench = Bench(node.pid, tally, await connected(node.port, quiet, tally))
            await noisy.tell(
                port=node.port,
                seats=[[it.key, it.room] for it in loud],
                per_s=10 * MESSAGES_PER_S,
            )
            await noisy.hear()
            await bench.round(None, 2)
            await _all_states(bench, noisy, burner, rounds, seconds)
            return [state.summed() for state in bench.states.values()]
        finally:
            noisy.close()
            burner.close()
            cluster.close()


async def _all_states(
    bench: Bench, noisy: Other, burner: Other, rounds: int, seconds: float
) -> None:
    # How much A's process takes: found beside B, in a round that doesn't count.
    await noisy.tell(seconds=seconds)
    await bench.round(None, seconds)
    share = min(1.0, (await noisy.hear())["cpu_s"] / seconds)
    orders = list(itertools.permutations(bench.states.values()))
    for number in range(rounds):
        for state in orders[number % len(orders)]:
            other = {BESIDE: noisy, BURNING: burner}.get(state.name)
            if other is not None:
                await other.tell(seconds=seconds, share=share)
            await bench.round(state, seconds)
            if other is not None:
                for name, value in (await other.hear()).items():
                    state.shouted[name] = round(state.shouted.get(name, 0) + value, 2)
            await asyncio.sleep(0.3)


def factors(found: list[dict[str, Any]]) -> dict[str, float]:
    """Compare the medians of the rounds' p99."""
    alone, beside, burning = (it["p99_median_ms"] for it in found)
    return {
        "beside A / alone": round(beside / alone, 2),
        "beside a burner / alone": round(burning / alone, 2),
        "beside A / beside a burner": round(beside / burning, 2),
    }


def table(found: list[dict[str, Any]]) -> str:
    head = (
        f"{'ms':18} {'sends':>6} {'p50':>7} {'p99':>7} {'p99 (median)':>12} {'most':>8}"
        f" {'server CPU':>10}"
    )
    rows = [
        f"{it['name']:18} {it['sends']:6} {it['p50_ms']:7} {it['p99_ms']:7}"
        f" {it['p99_median_ms']:12} {it['most_ms']:8} {it['server_cpu']:10}"
        for it in found
    ]
    return "\n".join([head, *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=3, help="of each state in each round")
    parser.add_argument("--users", type=int, default=50, help="of B, two messages a second each")
    parser.add_argument("--noisy-users", type=int, default=1, help="of A, ten times the limit each")
    parser.add_argument(
        "--no-fsync", action="store_true", help="where the disk is shared with others who write"
    )
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--shout", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--burn", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.burn:
        burn()
        return 0
    if options.shout:
        uvloop.run(shout())
        return 0
    found = uvloop.run(
        run(
            options.rounds,
            options.seconds,
            options.users,
            options.noisy_users,
            durable=not options.no_fsync,
        )
    )
    compared = factors(found)
    print(table(found))
    did = found[1]["shouted"]
    print(f"A sent {did['sent']:g}: {did['accepted']:g} accepted, {did['refused']:g} refused.")
    for name, factor in compared.items():
        print(f"{name}: {factor}")
    print(f"The goal is {GOAL:g} for beside A / alone, on a machine that is not itself at its end.")
    if options.json:
        figures = {"states": found, "factors": compared, "goal": GOAL}
        options.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if compared["beside A / alone"] <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
