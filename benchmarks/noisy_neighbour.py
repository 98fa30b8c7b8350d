"""Does one noisy client slow another down? B's latency alone, and beside A at ten times its limit.

    python -m benchmarks.noisy_neighbour [--seconds 10] [--json FILE]

One node with embedded PostgreSQL and Valkey on this machine. B: users who each send one message a
second. A: another client whose users send ten times what one key may, refused or not, for the whole
time. What is measured is the time from the send to its acknowledgement, which means committed. The
goal: B's p99 beside A stays within twice its p99 alone.
"""

import argparse
import asyncio
import secrets
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import socketio

from tests.support.nodes import Cluster
from tests.support.servers import Servers

CHAT: Final = "/chat"
GOAL: Final = 2.0
ROUNDS: Final = 4
# What a key may send: `Limits.messages_per_s`.
MESSAGES_PER_S: Final = 20


@dataclass
class Measured:
    """One run. Times in milliseconds."""

    name: str
    sends: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    refused: int
    noisy_sent: int
    noisy_accepted: int
    noisy_refused: int


class Client:
    """A tenant with some connected users in one room each."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.sockets: list[tuple[socketio.AsyncClient, str]] = []

    async def build(self, operator_key: str, name: str, users: int) -> "Client":
        made = await self._post("/clients", operator_key, {"name": name})
        master = made["master_key"]
        for number in range(users):
            user = f"{name}-{number}"
            login = await self._post(f"/users/{user}/login", master, {"rotation": "explicit"})
            room = await self._post("/rooms", master, {"type": "group", "member_ids": [user]})
            socket = socketio.AsyncClient(reconnection=False)
            await socket.connect(
                self._url,
                auth={"token": login["key"]},
                namespaces=[CHAT],
                transports=["websocket"],
                wait_timeout=15,
            )
            self.sockets.append((socket, room["id"]))
        return self

    async def close(self) -> None:
        for socket, _ in self.sockets:
            await socket.disconnect()

    async def _post(self, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/login"):
            await self._send("PUT", path.removesuffix("/login"), key, {})
        return await self._send("POST", path, key, body)

    async def _send(self, method: str, path: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {key}"}
        async with self._session.request(
            method, f"{self._url}/api/v1{path}", json=body, headers=headers
        ) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found


def payload(room_id: str) -> dict[str, Any]:
    return {"room_id": room_id, "content": "hello", "client_msg_id": secrets.token_hex(8)}


async def speak(
    socket: socketio.AsyncClient,
    room_id: str,
    until: float,
    times: list[float],
    codes: Counter[str],
) -> None:
    """Send one message a second, spread over the second, and note how long each ack takes."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(secrets.randbelow(1000) / 1000)
    while loop.time() < until:
        started = time.perf_counter()
        ack = await socket.call("message.send", payload(room_id), namespace=CHAT, timeout=30)
        times.append(time.perf_counter() - started)
        codes["ok" if ack["ok"] else ack["error"]["code"]] += 1
        await asyncio.sleep(max(0.0, 1 - (time.perf_counter() - started)))


async def shout(
    socket: socketio.AsyncClient, room_id: str, until: float, per_s: float, codes: Counter[str]
) -> None:
    """Send without waiting for acks, at a fixed rate."""
    loop = asyncio.get_running_loop()

    def note(ack: dict[str, Any]) -> None:
        codes["ok" if ack["ok"] else ack["error"]["code"]] += 1

    due = loop.time()
    while loop.time() < until:
        codes["sent"] += 1
        await socket.emit("message.send", payload(room_id), namespace=CHAT, callback=note)
        due += 1 / per_s
        await asyncio.sleep(max(0.0, due - loop.time()))


class Figures:
    """What was measured in all rounds of one kind."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times: list[float] = []
        self.codes: Counter[str] = Counter()
        self.shouted: Counter[str] = Counter()

    def summed(self) -> Measured:
        times = sorted(self.times)
        shouted = self.shouted
        return Measured(
            name=self.name,
            sends=len(times),
            p50_ms=round(times[len(times) // 2] * 1000, 2),
            p99_ms=round(times[int(len(times) * 0.99)] * 1000, 2),
            most_ms=round(times[-1] * 1000, 2),
            refused=sum(count for code, count in self.codes.items() if code != "ok"),
            noisy_sent=shouted["sent"],
            noisy_accepted=shouted["ok"],
            noisy_refused=sum(n for code, n in shouted.items() if code not in ("sent", "ok")),
        )


async def measure(into: Figures, quiet: Client, noisy: Client | None, seconds: float) -> None:
    until = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as group:
        for socket, room in quiet.sockets:
            group.create_task(speak(socket, room, until, into.times, into.codes))
        for socket, room in noisy.sockets if noisy is not None else []:
            group.create_task(shout(socket, room, until, 10 * MESSAGES_PER_S, into.shouted))


async def run(seconds: float, users: int, noisy_users: int) -> list[Measured]:
    with Servers(tcp=True, durable=True) as servers:
        database = servers.fresh_database()
        cluster = Cluster(database, LIMITS_FACTOR="1")
        try:
            (node,) = await cluster.nodes("a")
            async with aiohttp.ClientSession() as session:
                operator = database.secrets.operator_key
                quiet = await Client(session, node.url).build(operator, "quiet", users)
                noisy = await Client(session, node.url).build(operator, "noisy", noisy_users)
                await measure(Figures("warm-up"), quiet, None, 2)
                alone, beside = Figures("B alone"), Figures("B beside A")
                # By turns, so that whatever else this machine does hits both.
                for _ in range(ROUNDS):
                    await measure(alone, quiet, None, seconds / ROUNDS)
                    await measure(beside, quiet, noisy, seconds / ROUNDS)
                await quiet.close()
                await noisy.close()
            return [alone.summed(), beside.summed()]
        finally:
            cluster.close()


def table(found: list[Measured]) -> str:
    head = (
        f"{'ms':12} {'sends':>6} {'p50':>8} {'p99':>8} {'most':>8}"
        f" {'A sent':>7} {'A got':>6} {'A refused':>9}"
    )
    rows = [
        f"{it.name:12} {it.sends:6} {it.p50_ms:8} {it.p99_ms:8} {it.most_ms:8}"
        f" {it.noisy_sent:7} {it.noisy_accepted:6} {it.noisy_refused:9}"
        for it in found
    ]
    return "\n".join([head, *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--users", type=int, default=50, help="of B, one message a second each")
    parser.add_argument("--noisy-users", type=int, default=1, help="of A, ten times the limit each")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    found = asyncio.run(run(options.seconds, options.users, options.noisy_users))
    factor = round(found[1].p99_ms / found[0].p99_ms, 2)
    print(table(found))
    print(f"B's p99 beside A is {factor} times its p99 alone; the goal is {GOAL:g}.")
    if options.json:
        figures = {"runs": [asdict(it) for it in found], "factor": factor, "goal": GOAL}
        options.json.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if factor <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
