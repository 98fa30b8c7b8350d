"""One run that uses every feature; then: what do metrics, traces, logs and error reports say?

Above all what they don't: every text that somebody wrote, every address and every secret in this
run is a canary, and none of them may be found in what an operator's tools are sent.
"""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatserver.infra.figures import ALL, FIGURES
from tests.e2e.test_metrics import Figures, total
from tests.support.clients import CHAT, ROOMS
from tests.support.collector import Collector, Told, collecting
from tests.support.language_model import LanguageModelServer
from tests.support.mail_server import mail_server
from tests.support.nodes import Cluster, Node, Process, eventually
from tests.support.receiver import Receiver
from tests.support.scene import Scene, on_stage
from tests.support.servers import Servers, free_port, run
from tests.support.vendors import Vendor


def canary(kind: str) -> str:
    return f"{kind}zq{secrets.token_hex(8)}"


@dataclass
class Run:
    """What was left behind."""

    collector: Collector
    canaries: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    room: str = ""
    health: dict[str, Any] = field(default_factory=dict)

    def secret(self, kind: str) -> str:
        return self.canaries.setdefault(kind, canary(kind))

    def figures(self, part: str) -> Figures:
        found: Figures = {}
        for family in text_string_to_metric_families(self.pages[part]):
            for sample in family.samples:
                found[sample.name, frozenset(sample.labels.items())] = sample.value
        return found

    def trace_of(self, span: Told) -> dict[str, Told]:
        return {each.name: each for each in self.collector.of_trace(span.trace)}


@pytest.fixture(scope="module")
def seen(servers: Servers) -> Iterator[Run]:
    database = servers.fresh_database()
    yield run(_all_of_it(servers, database))
    servers.drop(database)


async def _all_of_it(servers: Servers, database: Any) -> Run:
    async with (
        collecting() as collector,
        LanguageModelServer() as model,
        mail_server() as mails,
        Receiver() as receiver,
    ):
        seen = Run(collector)
        cluster = Cluster(
            database,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="100",
            SENTRY_DSN=collector.dsn,
            LOG_LEVEL="debug",
            LOG_FILE=str(servers.directory / f"{database.name}.log"),
            METRICS_PORT=str(free_port()),
            LOOP_BLOCKED_MS="50",
            ALLOW_PRIVATE_ADDRESSES="true",
            OPENAI_API_KEY=seen.secret("sk-model"),
            OPENAI_BASE_URL=f"http://127.0.0.1:{model.port}/v1",
        )
        try:
            node, other = (await asyncio.gather(cluster.nodes("a", "b"), cluster.workers()))[0]
            async with on_stage([node, other], database.secrets.operator_key) as scene:
                await _watch_from_another_node(scene)
                await _use_everything(seen, scene, receiver, mails.port)
                await _break_things(seen, scene, database.admin_url)
                await _look(seen, cluster, node)
            for process in cluster.processes:
                await process.terminate()
                seen.logs[process.name] = process.log_file.read_text()
            seen.logs["file"] = (servers.directory / f"{database.name}.log").read_text()
        finally:
            cluster.close()
        return seen


async def _use_everything(seen: Run, scene: Scene, receiver: Receiver, mail_port: int) -> None:
    api = scene.api
    seen.canaries["master"] = scene.master_key.split("_")[2]
    person = seen.secret("person") + "@example.org"
    hook = {"url": f"{receiver.url}/{seen.secret('path')}", "events": ["*"]}
    endpoint = (await api.post("/webhooks/endpoints", hook)).ok()
    seen.canaries["hook_secret"] = endpoint["secret"].removeprefix("whsec_")
    alice = await scene.device(person)
    seen.canaries["key"] = (await scene.key_of(person)).split("_")[3]
    bob = await scene.device("bob")
    room = await alice.create_room("bob", title=seen.secret("title"))
    seen.room = room["id"]
    sent = await alice.say(room["id"], seen.secret("text"))
    message = {"message_id": sent["id"]}
    await alice.call(CHAT, "message.edit", {**message, "content": seen.secret("edited")})
    await bob.call(CHAT, "message.react", {**message, "emoji": "👍"})
    await bob.call(CHAT, "typing.start", {"room_id": room["id"]})
    await alice.call(CHAT, "message.search", {"q": seen.secret("sought")})
    await alice.refused(CHAT, seen.secret("event").lower(), {"text": seen.secret("payload")})
    await alice.refused(ROOMS, "room.create", {"type": seen.secret("type")})
    await api.get(f"/{seen.secret('route')}", q=seen.secret("query"))
    await api.as_(f"csu_{seen.secret('kid')}_1_{seen.secret('stolen')}_abcdef").get("/me")
    await receiver.until(f"/{seen.secret('path')}", 1)
    await _receive(seen, scene)
    await _notify(seen, scene, mail_port)
    await _answer(seen, scene, alice)


async def _watch_from_another_node(scene: Scene) -> None:
    """What `a` is sent reaches a device on `b`, over the bus."""
    near, far = await scene.device("near"), await scene.device("far", node=1)
    room = (await near.create_room("far"))["id"]
    # He listens there, so what comes then comes by the bus.
    await far.has_seq(room, 1)
    await near.say(room, "over there")
    await far.has_seq(room, 2)


async def _receive(seen: Run, scene: Scene) -> None:
    body = {
        "slug": "shop",
        "scheme": "shopify",
        "secrets": [seen.secret("inbound")],
        "rules": [
            {
                "name": "tell",
                "actions": [
                    {
                        "type": "create_room",
                        "external_id": "orders",
                        "room_type": "group",
                        "title": "{{ $.note }}",
                        "member_ids": ["bob"],
                    },
                    {
                        "type": "post_message",
                        "room_external_id": "orders",
                        "content": "{{ $.note }}",
                    },
                ],
            }
        ],
    }
    source = (await scene.api.post("/webhooks/sources", body)).ok()
    vendor = Vendor(scene.api, scene.client["slug"], source["slug"])
    note = {"note": seen.secret("note")}
    event = (await vendor.shopify(seen.secret("inbound"), "orders/paid", note)).ok()["id"]

    async def has_run() -> bool:
        path = f"/webhooks/sources/{source['id']}/events/{event}"
        return bool((await scene.api.get(path)).ok()["status"] == "done")

    await eventually(has_run, why="the rules ran")
    refused = await vendor.shopify("another", "orders/paid", {"note": seen.secret("note")})
    assert refused.status == 401


async def _notify(seen: Run, scene: Scene, mail_port: int) -> None:
    api = scene.api
    provider = {
        "channel": "email",
        "kind": "smtp",
        "name": "ours",
        "config": {
            "host": "127.0.0.1",
            "port": mail_port,
            "tls": "none",
            "from": "no-reply@example.org",
            "username": "us",
            "password": seen.secret("smtp_password"),
        },
    }
    await api.post("/providers", provider)
    mail = seen.secret("mail") + "@example.net"
    request = {
        "recipients": [{"user_id": "bob"}, {"email": mail}],
        "channels": {
            "socket": {"title": seen.secret("notice"), "body": seen.secret("body")},
            "email": {"subject": seen.secret("subject"), "text": seen.secret("mail_text")},
        },
    }
    made = (await api.post("/notifications", request)).ok()

    async def settled() -> bool:
        found = (await api.get(f"/notifications/{made['id']}/deliveries")).ok()["items"]
        return all(each["state"] not in {"queued", "sending"} for each in found)

    await eventually(settled, why="every delivery was tried")


async def _answer(seen: Run, scene: Scene, alice: Any) -> None:
    bot = {"name": seen.secret("bot"), "instructions": seen.secret("instructions")}
    bot_id = (await scene.api.post("/bots", bot)).ok()["id"]
    known = {"bot_id": bot_id, "text": f"The harbour opens at six. {seen.secret('passage')}"}
    (await scene.api.post("/documents", {**known, "title": seen.secret("document")})).ok()

    async def is_ready() -> bool:
        found = (await scene.api.get("/documents", bot_id=bot_id)).ok()["items"]
        return [each["status"] for each in found] == ["ready"]

    await eventually(is_ready, within_s=60, why="the document is learnt")
    person = await scene.as_user(alice.name)
    session = (await person.post("/sessions", {"bot_id": bot_id})).ok()
    question = f"When does the harbour open? {seen.secret('question')}"
    ask = {"room_id": session["id"], "content": question, "client_msg_id": "q", "bot_id": bot_id}
    asked = await alice.call(CHAT, "assistant.ask", ask)

    def has_ended() -> bool:
        return any(
            fact["data"]["message"]["id"] == asked["message_id"]
            and fact["data"]["message"]["status"] == "complete"
            for fact in alice.of_type("message.updated")
        )

    await eventually(has_ended, within_s=60, why="the answer ended")


async def _break_things(seen: Run, scene: Scene, admin_url: str) -> None:
    """Have PostgreSQL refuse rows with people's words: its errors quote them."""
    connection = await asyncpg.connect(admin_url)
    try:
        for table in ("room", "message"):
            await connection.execute(
                f"alter table {table} add constraint never check (false) not valid"
            )
        room = {"type": "group", "title": seen.secret("refused_title")}
        assert (await scene.api.post("/rooms", room)).status == 500
        path = f"/rooms/{seen.room}/messages"
        words = f"{seen.secret('refused_text')}\n{seen.secret('second_line')}"
        assert (await scene.api.post(path, {"content": words})).status == 500
    finally:
        for table in ("room", "message"):
            await connection.execute(f"alter table {table} drop constraint if exists never")
        await connection.close()


async def _look(seen: Run, cluster: Cluster, node: Node) -> None:
    ports = {"web": node.port}
    for process in cluster.processes:
        for line in process.said("metrics_served"):
            ports[process.name] = line["port"]
    async with aiohttp.ClientSession() as http:
        for part, port in ports.items():
            async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert answer.status == 200
                seen.pages[part] = await answer.text()
            async with http.get(f"http://127.0.0.1:{port}/health/ready") as answer:
                seen.health[part] = await answer.json()
    assert all(isinstance(each, Process) for each in cluster.processes)


class TestMetrics:
    def test_every_process_tells_and_is_ready(self, seen: Run) -> None:
        assert set(seen.pages) == {"web", "worker", "scheduler"}
        for part in seen.pages:
            assert total(seen.figures(part), "chatserver_build_info", part=part) == 1
            assert seen.health[part]["status"] == "ready"

    def test_all_of_it_is_in_the_catalogue_as_it_is(self, seen: Run) -> None:
        known = {each.full_name.removesuffix("_total"): each for each in ALL}
        found: set[str] = set()
        for page in seen.pages.values():
            for family in text_string_to_metric_families(page):
                if not family.name.startswith("chatserver_"):
                    continue
                figure = known[family.name]
                found.add(figure.name)
                assert family.type == figure.kind
                for sample in family.samples:
                    assert set(sample.labels) - {"le"} == set(figure.labels), figure.name
        # What a run without faults can't show.
        assert FIGURES.keys() - found <= {"jobs", "job_oldest_due_seconds"}

    def test_what_happened_was_counted(self, seen: Run) -> None:
        web, worker = seen.figures("web"), seen.figures("worker")
        scheduler = seen.figures("scheduler")
        assert total(web, "chatserver_http_requests_total", operation="room.create", status="500")
        assert total(web, "chatserver_http_request_seconds_count", noun="notification") >= 1
        assert total(web, "chatserver_inbound_webhooks_total", outcome="refused") == 1
        assert total(web, "chatserver_part_healthy", part="database") == 1
        assert total(web, "chatserver_database_connections_limit") >= 18
        assert total(worker, "chatserver_answers_total", outcome="complete") == 1
        assert total(worker, "chatserver_answer_first_token_seconds_count") == 1
        assert total(worker, "chatserver_answer_tokens_total") > 0
        assert total(worker, "chatserver_documents_total", outcome="ready") == 1
        assert total(worker, "chatserver_document_passages_total") >= 1
        assert total(worker, "chatserver_delivery_attempts_total", outcome="accepted") >= 3
        assert total(worker, "chatserver_delivery_states_total", channel="email") >= 1
        assert total(worker, "chatserver_job_attempts_total", outcome="done") >= 2
        assert total(worker, "chatserver_outbox_dispatched_total") >= 1
        assert total(scheduler, "chatserver_scheduler_active") == 1
        assert total(scheduler, "chatserver_duties_planned_total") >= 1
        assert total(scheduler, "chatserver_delivery_targets", state="active") >= 1
        assert total(scheduler, "chatserver_ledger_promised") >= 3
        assert total(scheduler, "chatserver_ledger_missing") == 0


class TestTraces:
    def test_a_message_is_followed_from_the_socket_to_the_webhook(self, seen: Run) -> None:
        # The other one was sent before there was an endpoint.
        (sent,) = [
            it
            for it in seen.collector.named("message.send")
            if not it.parent and "deliver webhook" in seen.trace_of(it)
        ]
        trace = seen.trace_of(sent)
        assert (sent.service, sent.attributes["chatserver.namespace"]) == ("chatserver-web", CHAT)
        for name in ("commit", "fan-out", "outbox message.created"):
            assert trace[name].parent == sent.id, name
        assert trace["outbox message.created"].service == "chatserver-worker"
        assert trace["deliver webhook"].service == "chatserver-worker"
        assert trace["deliver webhook"].attributes["chatserver.outcome"] == "accepted"

    def test_a_message_is_followed_to_the_other_node(self, seen: Run) -> None:
        over = [it for it in seen.collector.named("fan-out") if "chatserver.bus" in it.attributes]
        # Each below what told it, in another process: nobody's trace begins with the bus.
        told_by = {
            (above.name, above.service)
            for span in over
            for above in seen.collector.of_trace(span.trace)
            if above.id == span.parent
        }
        assert all(span.parent for span in over)
        # Nodes and workers what they committed, and an answer's job the deltas as they come.
        assert ("fan-out", "chatserver-web") in told_by
        assert {name for name, _ in told_by} <= {"fan-out", "job assistant.answer"}
        assert "message.send" in {
            it.name for span in over for it in seen.collector.of_trace(span.trace)
        }

    def test_a_notification_is_followed_to_its_deliveries(self, seen: Run) -> None:
        (asked,) = [it for it in seen.collector.named("notification.send") if not it.parent]
        sent = [it for it in seen.collector.of_trace(asked.trace) if it.name == "deliver email"]
        assert {it.service for it in sent} == {"chatserver-worker"}
        assert {it.parent for it in sent} == {asked.id}

    def test_a_question_is_followed_to_its_answer(self, seen: Run) -> None:
        (asked,) = seen.collector.named("assistant.ask")
        trace = seen.trace_of(asked)
        answered = trace["job assistant.answer"]
        assert answered.service == "chatserver-worker"
        assert answered.took_s > 0
        # What the worker commits is of the same trace.
        assert [it for it in seen.collector.named("commit") if it.parent == answered.id]

    def test_what_failed_is_marked(self, seen: Run) -> None:
        failed = [it for it in seen.collector.named("room.create") if it.is_error]
        assert {it.attributes["error.type"] for it in failed} == {"payload.invalid", "500"}
        assert [it for it in seen.collector.named("unknown") if it.is_error]

    def test_the_log_names_the_trace(self, seen: Run) -> None:
        (failed,) = [
            it
            for it in seen.collector.named("room.create")
            if it.attributes.get("chatserver.status") == 500
        ]
        assert f'"trace_id": "{failed.trace}"' in seen.logs["a"]


class TestErrors:
    def test_what_broke_is_reported_with_its_stack(self, seen: Run) -> None:
        reports = [it for it in seen.collector.errors if it["message"] == "request_failed"]
        assert len(reports) >= 1
        (report, *_) = reports
        assert report["tags"]["part"] == "web"
        assert report["server_name"] == "a"
        thrown = report["exception"]["values"][-1]
        assert "IntegrityError" in thrown["type"] or "CheckViolation" in thrown["type"]
        assert any("rooms/service.py" in it["filename"] for it in thrown["stacktrace"]["frames"])

    def test_no_more_than_that_is_reported(self, seen: Run) -> None:
        assert seen.collector.errors
        for report in seen.collector.errors:
            assert not {"request", "user", "breadcrumbs", "extra"} & report.keys()
            for thrown in report.get("exception", {}).get("values", ()):
                for frame in thrown["stacktrace"]["frames"]:
                    assert not {"vars", "context_line"} & frame.keys()


class TestNothingElse:
    @pytest.mark.parametrize("where", ["logs", "metrics", "traces and errors"])
    def test_no_word_of_anybody_and_no_secret_gets_out(self, seen: Run, where: str) -> None:
        texts = {
            "logs": "\n".join(seen.logs.values()),
            "metrics": "\n".join(seen.pages.values()),
            "traces and errors": b"\n".join(seen.collector.raw).decode(errors="replace"),
        }[where]
        assert len(texts) > 10_000
        assert len(seen.canaries) > 30
        if where == "logs":
            # PostgreSQL did quote what was refused.
            assert "DETAIL: ***" in texts
        leaked = {
            kind: texts[max(0, at - 200) : at + 80]
            for kind, word in seen.canaries.items()
            if (at := texts.lower().find(word.lower())) >= 0
        }
        assert leaked == {}
