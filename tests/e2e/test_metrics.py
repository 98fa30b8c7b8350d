"""`/metrics`: what an operator watches, without a word about anybody."""

import re

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import MakeCluster
from tests.support.clients import CHAT
from tests.support.nodes import Node, eventually
from tests.support.scene import Scene, on_stage

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def figures(node: Node) -> tuple[str, Figures]:
    async with aiohttp.ClientSession() as http, http.get(f"{node.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
    found: Figures = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return text, found


def total(found: Figures, name: str, **labels: str) -> float:
    return sum(
        value
        for (sample, given), value in found.items()
        if sample == name and labels.items() <= dict(given).items()
    )


class TestMetrics:
    async def test_what_happens_is_counted_and_nobody_is_named(
        self, scene: Scene, nodes: list[Node]
    ) -> None:
        _, before = await figures(nodes[0])
        alice = await scene.device("alice-of-wonderland", 0)
        bob = await scene.device("bob-the-builder", 0)
        room = await alice.create_room("bob-the-builder")
        for number in range(16):
            await alice.say(room["id"], f"{number}")
        await alice.refused(CHAT, "no.such.command", {})
        await bob.has_seq(room["id"], 17)
        text, after = await figures(nodes[0])

        def grown(name: str, **labels: str) -> float:
            return total(after, name, **labels) - total(before, name, **labels)

        # Of other tests' clients some may just have gone.
        assert total(after, "chatserver_connections", namespace=CHAT, transport="websocket") >= 2
        assert grown("chatserver_commands_total", command="message.send", outcome="ok") == 16
        assert grown("chatserver_commands_total", command="unknown") == 1
        assert grown("chatserver_commit_seconds_count") == grown("chatserver_batch_size_count") > 0
        assert grown("chatserver_batch_size_sum") == 16
        assert grown("chatserver_facts_total") >= 17
        assert grown("chatserver_deliveries_total") >= 34
        assert grown("chatserver_fanout_lag_seconds_count") >= 1
        assert total(after, "chatserver_bus_healthy") == 1
        assert total(after, "process_resident_memory_bytes") > 0
        for secret in ("alice", "bob-the", scene.client["id"], scene.client["slug"], room["id"]):
            assert secret not in text
        assert re.search(r"cs[mu]_", text) is None

        async def heard() -> bool:
            return total((await figures(nodes[0]))[1], "chatserver_bus_heartbeat_seconds") > 0

        await eventually(heard, why="a heartbeat came back")

    async def test_of_several_processes_one_answers_for_all(self, cluster: MakeCluster) -> None:
        made = cluster(PROCESSES="2")
        (node,) = await made.nodes("a")
        async with on_stage([node], made.database.secrets.operator_key) as scene:
            for number in range(10):
                await scene.device(f"user{number}", namespaces=(CHAT,))
            _, found = await figures(node)
            assert total(found, "chatserver_connections", namespace=CHAT) == 10
            assert {dict(labels).get("node") for _, labels in found} == {"a-0", "a-1"}
