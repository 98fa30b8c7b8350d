"""Processes are killed, Redis forgets, PostgreSQL dies: what was promised comes to an end."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import asyncpg
import pytest
from redis.asyncio import Redis

from tests.chaos.doomed import UNRUNG
from tests.support.mail_server import MailServer, mail_server
from tests.support.nodes import START_S, Cluster, Node, Process, eventually
from tests.support.receiver import Receiver
from tests.support.scene import Scene, on_stage
from tests.support.servers import Servers

MAIL: Final = {"subject": "Your order", "text": "It is on its way."}
UNDER_WAY: Final = ("scheduled", "queued", "sending", "retry_wait")


@pytest.fixture
def cluster(own_servers: Servers) -> Iterator[Cluster]:
    """On servers of its own, which may be hurt."""
    made = Cluster(own_servers.fresh_database(), ALLOW_PRIVATE_ADDRESSES="true")
    yield made
    made.close()


def worker_of(cluster: Cluster, name: str) -> Process:
    made = Process(name, ["chatserver", "worker"], cluster.environment, cluster.directory)
    cluster.processes.append(made)
    made.spawn()
    return made


@asynccontextmanager
async def staged(cluster: Cluster, node: Node) -> AsyncIterator[tuple[Scene, MailServer, Receiver]]:
    """A tenant whose mails and webhooks go to this process."""
    async with (
        on_stage([node], cluster.database.secrets.operator_key) as scene,
        mail_server() as mails,
        Receiver() as receiver,
    ):
        config = {"host": "127.0.0.1", "port": mails.port, "tls": "none", "from": "a@example.org"}
        made = await scene.api.post(
            "/providers", {"channel": "email", "kind": "smtp", "name": "x", "config": config}
        )
        assert made.ok()["verified"]["ok"]
        yield scene, mails, receiver


def asked(receiver: Receiver, n: int) -> dict[str, Any]:
    return {
        "recipients": [
            {"user_id": "ann", "email": f"b{n}@example.net", "url": f"{receiver.url}/{n}"}
        ],
        "channels": {"socket": {"title": f"{n}"}, "email": MAIL, "webhook": {"data": {"n": n}}},
    }


async def insist(scene: Scene, node: Node, body: dict[str, Any]) -> str:
    """Ask until there is a 202, under one key, as a careful caller does."""
    headers = {"Idempotency-Key": secrets.token_hex(8)}

    async def answered() -> str | None:
        try:
            answer = await scene.api.at(node.url).send(
                "POST", "/notifications", body, headers=headers
            )
        except (aiohttp.ClientError, TimeoutError):
            return None
        return answer.body["id"] if answer.status == 202 else None

    made: str = await eventually(answered, within_s=90, why="it is taken")
    return made


async def ended(cluster: Cluster, scene: Scene) -> dict[str, dict[str, int]]:
    """Wait until all deliveries have; leases of the dead end now. The ledger balances."""
    connection = await asyncpg.connect(cluster.database.admin_url)
    try:

        async def all_have() -> bool:
            await connection.execute(
                "update delivery set lease_until = clock_timestamp() - interval '1 s'"
                " where state = 'sending' and lease_until < clock_timestamp() + interval '50 s'"
            )
            # What may have arrived waits for two minutes.
            await connection.execute(
                "update delivery set next_at = clock_timestamp() where state = 'retry_wait'"
            )
            left: int = await connection.fetchval(
                "select count(*) from delivery where state = any ($1::text[])", list(UNDER_WAY)
            )
            return left == 0

        await eventually(all_have, within_s=120, why="every delivery ends")
    finally:
        await connection.close()
    ledger = (await scene.api.get("/ledger")).ok()
    assert ledger["balanced"]
    return {
        line["channel"]: {state: n for state, n in line["states"].items() if n}
        for line in ledger["channels"]
    }


async def unknowns(cluster: Cluster) -> Counter[str]:
    """Count, by Message-ID, the tries of which nobody knows how they went."""
    connection = await asyncpg.connect(cluster.database.admin_url)
    try:
        rows = await connection.fetch(
            "select delivery_id, count(*) as n from delivery_attempt where outcome = 'unknown'"
            " group by 1"
        )
    finally:
        await connection.close()
    return Counter({f"<{row['delivery_id']}@example.org>": row["n"] for row in rows})


async def told_once(cluster: Cluster, mails: MailServer, receiver: Receiver, count: int) -> None:
    """Nobody got a webhook under two ids; a mail came twice only where that is written down."""
    ids = {got.path: got.id for got in receiver.got}
    assert len(ids) == count
    assert {(got.path, got.id) for got in receiver.got} == set(ids.items())
    written = await unknowns(cluster)
    came = Counter(str(mail["Message-ID"]) for mail in mails.mails())
    assert len(came) == count
    assert all(n <= 1 + written[name] for name, n in came.items())


async def test_a_node_killed_between_commit_and_doorbell_has_promised_nothing_in_vain(
    cluster: Cluster,
) -> None:
    note = cluster.directory / "note.json"
    node = cluster.node("a", FAIL_AT=UNRUNG, FAIL_AFTER="0", FAIL_NOTE=str(note))
    await node.start()
    worker_of(cluster, "worker")
    async with staged(cluster, node) as (scene, mails, receiver):
        await scene.people("ann")
        node.program = "tests.chaos.doomed"
        await node.terminate()
        await node.start()
        body, headers = asked(receiver, 0), {"Idempotency-Key": "once"}
        with pytest.raises(aiohttp.ClientError):
            await scene.api.at(node.url).send("POST", "/notifications", body, headers=headers)
        await eventually(lambda: not node.is_running, why="it is dead")
        # Nobody rang, nobody was answered, and no node is there: it goes out all the same.
        await eventually(lambda: mails.taken and receiver.got, within_s=60, why="it goes out")
        node.program = "chatserver"
        await node.start()
        again = await eventually(
            lambda: _answer(scene, node, body, headers), within_s=60, why="it is answered"
        )
        assert (again.status, again.headers.get("Idempotency-Replayed")) == (202, "true")
        states = await ended(cluster, scene)
        assert states == {
            "socket": {"accepted": 1}, "email": {"accepted": 1}, "forward": {"delivered": 1},
        }  # fmt: skip
        assert (len(mails.taken), len(receiver.got)) == (1, 1)
        listed = (await scene.api.get("/notifications")).ok()
        assert [it["id"] for it in listed["items"]] == [again.body["id"]]


async def _answer(scene: Scene, node: Node, body: Any, headers: dict[str, str]) -> Any:
    answer = await scene.api.at(node.url).send("POST", "/notifications", body, headers=headers)
    return answer if answer.status != 409 else None


async def test_a_redis_that_forgets_everything_under_load_costs_nothing(
    cluster: Cluster, own_servers: Servers
) -> None:
    count = 60
    [node] = await cluster.nodes("a")
    worker_of(cluster, "worker")
    redis = Redis.from_url(own_servers.valkey.url)
    async with staged(cluster, node) as (scene, mails, receiver):
        await scene.people("ann")

        async def forget() -> None:
            while True:
                await redis.flushall()
                await asyncio.sleep(0.05)

        forgetting = asyncio.create_task(forget())
        try:
            for start in range(0, count, 10):
                await asyncio.gather(
                    *(insist(scene, node, asked(receiver, n)) for n in range(start, start + 10))
                )
            states = await ended(cluster, scene)
        finally:
            forgetting.cancel()
            await redis.aclose()
        assert states == {
            "socket": {"accepted": count},
            "email": {"accepted": count},
            "forward": {"delivered": count},
        }
        assert (len(mails.taken), len(receiver.got)) == (count, count)


async def test_everything_killed_at_once_comes_back_and_ends_what_it_has_promised(
    cluster: Cluster, own_servers: Servers
) -> None:
    count = 40
    [node] = await cluster.nodes("a")
    workers = [worker_of(cluster, name) for name in ("w1", "w2")]
    async with staged(cluster, node) as (scene, mails, receiver):
        await scene.people("ann")
        asking = [
            asyncio.create_task(insist(scene, node, asked(receiver, n))) for n in range(count)
        ]
        await eventually(lambda: len(receiver.got) >= 5, within_s=START_S, why="some went out")
        own_servers.postgres.kill()
        for process in (node, *workers):
            process.kill()
        own_servers.valkey.kill()
        own_servers.postgres.start()
        own_servers.valkey.start()
        await node.start()
        for worker in workers:
            worker.spawn()
        made = await asyncio.gather(*asking)
        assert len(set(made)) == count
        states = await ended(cluster, scene)
        listed = (await scene.api.get("/notifications", size="100")).ok()
        # Each key is one notification, however often it was asked for.
        assert {it["id"] for it in listed["items"]} == set(made)
        assert {name: sum(each.values()) for name, each in states.items()} == {
            "socket": count, "email": count, "forward": count,
        }  # fmt: skip
        assert states["forward"] == {"delivered": count}
        assert set(states["email"]) <= {"accepted", "failed"}
        await told_once(cluster, mails, receiver, count)
