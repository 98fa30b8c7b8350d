"""Limits, quotas and caps as callers meet them, over REST and with stock clients."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from chatserver.infra.secrets import new_scoped_key
from tests.e2e.conftest import MakeCluster
from tests.support.clients import CHAT, ROOMS, Api, PythonDevice, RefusedError
from tests.support.nodes import Cluster, Node, eventually
from tests.support.servers import Servers

RATE_LIMIT = re.compile(r'"[a-z-]+";r=\d+;t=\d+(, "[a-z-]+";r=\d+;t=\d+)*')
RATE_LIMIT_POLICY = re.compile(r'"[a-z-]+";q=\d+;w=\d+(, "[a-z-]+";q=\d+;w=\d+)*')


class House:
    """A tenant on one node or more, and the operator who rules over it."""

    def __init__(self, nodes: list[Node], operator: Api, made: dict[str, Any]) -> None:
        self.nodes = nodes
        self.operator = operator
        self.id = made["id"]
        self.master = operator.as_(made["master_key"])
        self.devices: list[PythonDevice] = []

    async def set(self, **members: Any) -> None:
        (await self.operator.patch(f"/clients/{self.id}", members)).ok()
        # Every node reads a client's limits again within 5 s; here nobody wants to wait.
        await asyncio.sleep(5.2)

    async def login(self, name: str, **more: Any) -> dict[str, Any]:
        await self.master.put(f"/users/{name}")
        answer: dict[str, Any] = (await self.master.post(f"/users/{name}/login", more)).ok()
        return answer

    async def device(
        self, name: str, *namespaces: str, node: int = 0, key: str | None = None, **options: Any
    ) -> PythonDevice:
        key = key or (await self.login(name))["key"]
        made = PythonDevice(name, self.nodes[node].url, key, **options)
        self.devices.append(made)
        return await made.connect(*(namespaces or (CHAT,)))


async def build(nodes: list[Node], operator_key: str, session: aiohttp.ClientSession) -> House:
    operator = Api(session, nodes[0].url, operator_key)
    made = (await operator.post("/clients", {"name": f"house {secrets.token_hex(4)}"})).ok()
    return House(nodes, operator, made)


@pytest.fixture
async def house(nodes: list[Node], pair: Any) -> AsyncIterator[House]:
    async with aiohttp.ClientSession() as session:
        made = await build(nodes, pair.database.secrets.operator_key, session)
        yield made
        await asyncio.gather(*(device.close() for device in made.devices))


class TestRest:
    async def test_every_answer_says_what_is_left(self, house: House) -> None:
        key = (await house.login("ann"))["key"]
        answers = [
            await house.master.get("/client"),
            await house.operator.get("/clients"),
            await house.master.as_(key).get("/rooms"),
            await house.master.as_(key).get("/rooms/018f0000-0000-7000-8000-000000000001"),
            await house.master.as_(key).get("/clients"),
            await house.master.as_(None).get("/rooms"),
            await house.master.as_("csm_nonsense").get("/rooms"),
            await house.master.get("/nothing/here"),
            await house.master.send("POST", "/rooms", raw=b"{"),
        ]
        statuses = [answer.status for answer in answers]
        assert statuses == [200, 200, 200, 404, 403, 401, 401, 404, 422]
        for answer in answers:
            assert RATE_LIMIT.fullmatch(answer.headers["RateLimit"]), answer.headers
            assert RATE_LIMIT_POLICY.fullmatch(answer.headers["RateLimit-Policy"]), answer.headers

    async def test_the_numbers_go_down_and_end_in_429(self, house: House) -> None:
        await house.set(limits={"requests_per_s": 1, "requests_burst": 5})
        api = house.master.as_((await house.login("ben"))["key"])
        answers = [await api.get("/rooms") for _ in range(9)]
        assert [answer.status for answer in answers[:5]] == [200] * 5
        refused = answers[-1]
        assert refused.status == 429
        assert refused.body["code"] == "rate.limited"
        assert refused.body["retryable"] is True
        assert 0 < refused.body["retry_after_ms"] <= 1001
        assert refused.headers["Retry-After"] == "1"
        assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')
        assert refused.headers["RateLimit-Policy"].startswith('"requests";q=5;w=5')
        assert refused.body["details"]["policy"] == "requests"
        assert refused.body["details"]["limit"] == 5
        assert refused.body["details"]["remaining"] == 0
        await asyncio.sleep(refused.body["retry_after_ms"] / 1000)
        assert (await api.get("/rooms")).status == 200

    async def test_both_nodes_hold_a_key_to_one_limit(self, house: House) -> None:
        await house.set(limits={"requests_per_s": 1, "requests_burst": 20})
        api = house.master.as_((await house.login("cem"))["key"])
        started = time.monotonic()
        doors = [api, api.at(house.nodes[1].url)]
        answers = []
        for _ in range(30):
            # Few at a time: a node that is too busy to hear Redis in time goes on alone.
            answers += await asyncio.gather(*(door.get("/rooms") for door in doors))
        passed = sum(answer.status == 200 for answer in answers)
        assert 18 <= passed <= 20 + (time.monotonic() - started) + 1

    async def test_usage_shows_the_limiters_own_numbers(self, house: House) -> None:
        await house.set(
            client_limits={"client_messages_burst": 50, "client_messages_per_s": 1},
            quotas={"messages_per_day": 1000},
        )
        room = (await house.master.post("/rooms", {"type": "group"})).ok()
        for number in range(7):
            path = f"/rooms/{room['id']}/messages"
            (await house.master.post(path, {"content": f"{number}"})).ok()
        usage = (await house.master.get("/client/usage")).ok()
        assert usage["enforced"] is True
        bucket = next(it for it in usage["buckets"] if it["policy"] == "client-messages")
        assert bucket["limit"] == 50
        assert 43 <= bucket["remaining"] <= 46
        quota = next(
            it for it in usage["quotas"] if (it["metric"], it["window"]) == ("messages", "day")
        )
        assert (quota["limit"], quota["used"], quota["left"]) == (1000, 7, 993)
        assert (
            await house.master.as_((await house.login("dot"))["key"]).get("/client/usage")
        ).status == 403


class TestQuotas:
    async def test_a_used_up_quota_is_told_on_both_doors(self, house: House) -> None:
        await house.set(quotas={"messages_per_hour": 4})
        ann = await house.device("ann", ROOMS, CHAT)
        room = await ann.create_room()
        for number in range(4):
            await ann.say(room["id"], f"{number}")
        payload = {"room_id": room["id"], "content": "x", "client_msg_id": "m5"}
        error = await ann.refused(CHAT, "message.send", payload)
        assert error["code"] == "quota.exceeded"
        assert error["status"] == 429
        assert error["details"]["policy"] == "messages-per-hour"
        assert 0 < error["retry_after_ms"] <= 3_600_000
        answer = await house.master.post(f"/rooms/{room['id']}/messages", {"content": "x"})
        assert answer.status == 429
        assert answer.body["code"] == "quota.exceeded"
        # The other node learns of it within a second or two.
        other = house.master.at(house.nodes[1].url)

        async def refused() -> bool:
            path = f"/rooms/{room['id']}/messages"
            return (await other.post(path, {"content": "x"})).status == 429

        await eventually(refused, within_s=10, why="the other node holds to the quota, too")

    async def test_usage_survives_in_postgresql(self, house: House, pair: Any) -> None:
        room = (await house.master.post("/rooms", {"type": "group"})).ok()
        (await house.master.post(f"/rooms/{room['id']}/messages", {"content": "x"})).ok()

        async def written() -> bool:
            import asyncpg  # noqa: PLC0415

            connection = await asyncpg.connect(pair.database.app_url)
            try:
                used = await connection.fetchval(
                    "select used from client_usage where client_id = $1::uuid"
                    " and metric = 'messages' and period = 'day'",
                    house.id,
                )
            finally:
                await connection.close()
            return bool(used == 1)

        await eventually(written, within_s=15, why="the usage is written")


class TestSockets:
    async def test_messages_beyond_the_burst_are_refused_and_the_socket_stays(
        self, house: House
    ) -> None:
        await house.set(limits={"messages_per_s": 1, "messages_burst": 5})
        ann = await house.device("ann", ROOMS, CHAT)
        ready = ann.of_type("session.ready")[0]["data"]
        assert ready["limits"]["messages_burst"] == 5
        room = await ann.create_room()
        acks = await asyncio.gather(
            *(
                ann.emit(
                    CHAT,
                    "message.send",
                    {"room_id": room["id"], "content": f"{n}", "client_msg_id": f"m{n}"},
                )
                for n in range(20)
            )
        )
        refused = [ack["error"] for ack in acks if not ack["ok"]]
        assert 5 <= sum(ack["ok"] for ack in acks) <= 7
        assert {error["code"] for error in refused} == {"rate.limited"}
        assert refused[0]["details"]["policy"] == "messages"
        await asyncio.sleep(refused[-1]["retry_after_ms"] / 1000)
        await ann.say(room["id"], "again")
        assert ann.disconnects == []

    async def test_rest_and_sockets_empty_the_same_bucket(self, house: House) -> None:
        await house.set(limits={"messages_per_s": 1, "messages_burst": 4})
        key = (await house.login("ann"))["key"]
        ann = await house.device("ann", ROOMS, CHAT, key=key)
        room = await ann.create_room()
        api = house.master.as_(key)
        for number in range(4):
            await api.post(f"/rooms/{room['id']}/messages", {"content": f"{number}"})
        payload = {"room_id": room["id"], "content": "x", "client_msg_id": "m"}
        error = await ann.refused(CHAT, "message.send", payload)
        assert error["code"] == "rate.limited"

    async def test_a_flood_of_well_formed_commands_is_refused_but_never_cut(
        self, house: House
    ) -> None:
        await house.set(limits={"commands_per_s": 5, "commands_burst": 20})
        ann = await house.device("ann", ROOMS)
        acks = await asyncio.gather(*(ann.emit(ROOMS, "room.list", {}) for _ in range(1500)))
        assert 20 <= sum(ack["ok"] for ack in acks) <= 120
        assert {ack["error"]["code"] for ack in acks if not ack["ok"]} == {"rate.limited"}
        await asyncio.sleep(1)
        await ann.call(ROOMS, "room.list", {})
        assert ann.disconnects == []

    async def test_connects_beyond_the_burst_are_refused_with_a_time(self, house: House) -> None:
        await house.set(limits={"connects_per_s": 1, "connects_burst": 2})
        key = (await house.login("ann", rotation="explicit"))["key"]
        for _ in range(2):
            await house.device("ann", key=key)
        with pytest.raises(RefusedError) as refusal:
            await asyncio.gather(*(house.device("ann", key=key) for _ in range(3)))
        assert refusal.value.error["code"] == "rate.limited"
        assert refusal.value.error["details"]["policy"] == "connects"
        assert refusal.value.error["retry_after_ms"] > 0


class TestCaps:
    async def test_the_oldest_idle_connection_of_a_device_makes_room(self, house: House) -> None:
        await house.set(limits={"connections_per_device": 2})
        key = (await house.login("ann", rotation="explicit"))["key"]
        first = await house.device("ann", ROOMS, key=key)
        second = await house.device("ann", ROOMS, key=key)
        await first.call(ROOMS, "room.list", {})  # now the second is idle for longer
        third = await house.device("ann", ROOMS, key=key)
        await eventually(lambda: second.disconnects, why="the idle one goes")
        closing = second.of_type("session.closing", ROOMS)[0]["data"]
        assert closing["code"] == "quota.exceeded"
        assert closing["reconnect"] == "never"
        assert first.disconnects == third.disconnects == []
        await third.call(ROOMS, "room.list", {})

    async def test_a_user_has_a_cap_over_all_devices_and_nodes(self, house: House) -> None:
        await house.set(limits={"connections_per_user": 4})
        devices = []
        for number in range(8):
            key = (await house.login("ann", device_id=f"d{number}"))["key"]
            devices.append(await house.device("ann", ROOMS, key=key, node=number % 2))
        await eventually(
            lambda: sum(bool(device.disconnects) for device in devices) == 4,
            within_s=15,
            why="four of eight have made room",
        )
        assert devices[-1].disconnects == []

    async def test_a_full_client_is_refused(self, house: House) -> None:
        await house.set(client_limits={"connections_per_client": 2})
        await house.device("ann")
        await house.device("ben")
        with pytest.raises(RefusedError) as refusal:
            await house.device("cem")
        assert refusal.value.error["code"] == "quota.exceeded"
        assert refusal.value.error["details"]["policy"] == "connections-per-client"


class TestOwnCluster:
    async def test_a_full_address_is_refused_whatever_it_says_of_itself(
        self, cluster: MakeCluster
    ) -> None:
        made = cluster(LIMIT_VALUES='{"connections_per_address": 3}', LIMITS_FACTOR="1")
        nodes = await made.nodes("a")
        async with aiohttp.ClientSession() as session:
            house = await build(nodes, made.database.secrets.operator_key, session)
            for name in ("a", "b", "c"):
                await house.device(name)
            with pytest.raises(RefusedError) as refusal:
                await house.device("d")
            assert refusal.value.error["code"] == "quota.exceeded"
            assert refusal.value.error["details"]["policy"] == "connections-per-address"
            # A proxy that nobody trusts may say what it likes.
            spoofed = {"X-Forwarded-For": "9.9.9.9", "Forwarded": "for=9.9.9.9"}
            url = f"{nodes[0].url}/socket.io/?EIO=4&transport=polling"
            answers = []
            for _ in range(6):
                async with session.get(url, headers=spoofed) as answer:
                    answers.append((answer.status, answer.headers.get("Retry-After")))
            assert answers[-1] == (503, "30")
            await asyncio.gather(*(device.close() for device in house.devices))

    async def test_nonsense_is_answered_a_hundred_times_and_then_the_socket_is_closed(
        self, cluster: MakeCluster
    ) -> None:
        made = cluster(LIMITS_FACTOR="1")
        nodes = await made.nodes("a")
        async with aiohttp.ClientSession() as session:
            house = await build(nodes, made.database.secrets.operator_key, session)
            await self.send_nonsense(await house.device("ann", CHAT))

    async def send_nonsense(self, ann: PythonDevice) -> None:
        codes = [(await ann.refused(CHAT, "no.such.thing", {}))["code"] for _ in range(100)]
        assert set(codes) == {"event.unknown"}
        assert ann.of_type("session.closing") == []
        await ann.client.emit("no.such.thing", {}, namespace=CHAT)
        await eventually(lambda: ann.of_type("session.closing"), why="it is told to go")
        assert ann.of_type("session.closing")[0]["data"]["code"] == "rate.limited"
        await eventually(lambda: ann.disconnects, why="it is closed")

    async def test_behind_a_trusted_proxy_the_address_is_the_one_it_saw(
        self, cluster: MakeCluster
    ) -> None:
        made = cluster(
            LIMIT_VALUES='{"connections_per_address": 2}',
            LIMITS_FACTOR="1",
            TRUSTED_PROXIES="127.0.0.0/8",
        )
        nodes = await made.nodes("a")
        async with aiohttp.ClientSession() as session:
            house = await build(nodes, made.database.secrets.operator_key, session)

            async def arrive(name: str, forwarded_for: str) -> None:
                device = PythonDevice(name, nodes[0].url, (await house.login(name))["key"])
                headers = {"X-Forwarded-For": forwarded_for, "Forwarded": "for=9.9.9.9"}
                device.client.eio.http = aiohttp.ClientSession(headers=headers)
                house.devices.append(device)
                await device.connect(CHAT)

            # What stands to the left of the proxy's own word was made up by the caller.
            await arrive("a", "1.1.1.1, 2001:db8::1")
            await arrive("b", "2.2.2.2, 2001:db8::2")
            with pytest.raises(RefusedError) as refusal:
                await arrive("c", "3.3.3.3, 2001:db8::3")
            assert refusal.value.error["details"]["policy"] == "connections-per-address"
            await arrive("d", "1.1.1.1, 2001:db8:0:1::1")
            await asyncio.gather(*(device.close() for device in house.devices))

    async def test_guessing_is_stopped_at_both_doors(self, cluster: MakeCluster) -> None:
        made = cluster(LIMIT_VALUES='{"address_failures_per_minute": 5}', LIMITS_FACTOR="1")
        nodes = await made.nodes("a")
        async with aiohttp.ClientSession() as session:
            house = await build(nodes, made.database.secrets.operator_key, session)
            assert (await house.master.get("/client")).status == 200
            codes = []
            for _ in range(8):
                # Well-formed, but nobody's.
                device = PythonDevice("ann", nodes[0].url, new_scoped_key().text)
                with pytest.raises(RefusedError) as refusal:
                    await device.connect(CHAT)
                codes.append(refusal.value.error["code"])
            assert codes[:5] == ["auth.invalid"] * 5
            assert codes[-1] == "rate.limited"
            guessed = [await house.master.as_(f"guess {n}").get("/client") for n in range(3)]
            assert guessed[-1].status == 429
            assert guessed[-1].headers["RateLimit"].startswith('"address-failures";r=0;t=')
            # Whoever proved himself a moment ago is not locked out by a neighbour's guesses.
            assert (await house.master.get("/client")).status == 200

    async def test_when_redis_dies_nobody_waits_and_limits_still_hold(self) -> None:
        with Servers(tcp=True) as servers:
            cluster = Cluster(servers.fresh_database(), LIMITS_FACTOR="1")
            try:
                await self.outlive_redis(servers, cluster)
            finally:
                cluster.close()

    async def outlive_redis(self, servers: Servers, cluster: Cluster) -> None:
        nodes = await cluster.nodes("a")
        async with aiohttp.ClientSession() as session:
            house = await build(nodes, cluster.database.secrets.operator_key, session)
            await house.set(limits={"commands_per_s": 1, "commands_burst": 40})
            ann = await house.device("ann", ROOMS)
            servers.valkey.kill()
            waits, answers = [], []
            for _ in range(60):
                started = time.monotonic()
                ack = await ann.emit(ROOMS, "room.list", {})
                waits.append(time.monotonic() - started)
                answers.append("ok" if ack["ok"] else ack["error"]["code"])
            assert set(answers) == {"ok", "rate.limited"}
            # Alone, a node allows half of the burst, and half of the rate.
            assert 20 <= answers.count("ok") <= 40
            assert sorted(waits)[len(waits) // 2] < 0.25
            servers.valkey.start()
            await eventually(
                lambda: len(nodes[0].said("redis_limits_there")) == 1, why="Redis is used again"
            )
            await asyncio.sleep(2)
            await ann.call(ROOMS, "room.list", {})
            await ann.close()

    async def test_limits_can_be_switched_off(self, cluster: MakeCluster) -> None:
        made = cluster(
            RATE_LIMITS_ENABLED="false",
            LIMIT_VALUES='{"requests_burst": 2, "requests_per_s": 1}',
            LIMITS_FACTOR="1",
        )
        nodes = await made.nodes("a")
        async with aiohttp.ClientSession() as session:
            house = await build(nodes, made.database.secrets.operator_key, session)
            api = house.master.as_((await house.login("ann"))["key"])
            answers = [await api.get("/rooms") for _ in range(10)]
            assert {answer.status for answer in answers} == {200}
            assert RATE_LIMIT.fullmatch(answers[-1].headers["RateLimit"])

    async def test_a_refused_connect_waits_for_its_answer(self, cluster: MakeCluster) -> None:
        made = cluster(CONNECT_REFUSAL_S="1", LIMITS_FACTOR="1")
        nodes = await made.nodes("a")
        started = time.monotonic()
        device = PythonDevice("ann", nodes[0].url, "csu_nonsense")
        with pytest.raises(RefusedError) as refusal:
            await device.connect(CHAT)
        assert refusal.value.error["code"] == "auth.invalid"
        assert 0.5 <= time.monotonic() - started < 5


class TestOrigins:
    @pytest.mark.parametrize("transport", ["websocket", "polling"])
    @pytest.mark.parametrize(
        ("origin", "is_let_in"),
        [
            ("https://app.example.com", True),
            (None, True),
            ("null", False),
            ("https://evil.example", False),
            ("https://app.example.com.evil.example", False),
            ("https://app.example.com:8443", False),
            ("http://app.example.com", False),
        ],
    )
    async def test_sockets_hold_browsers_to_the_list(
        self, house: House, origin: str | None, transport: str, *, is_let_in: bool
    ) -> None:
        (await house.master.patch("/client", {"cors_origins": ["https://app.example.com"]})).ok()
        key = (await house.login("ann"))["key"]
        made = PythonDevice("ann", house.nodes[0].url, key, transports=(transport,))
        headers = {} if origin is None else {"Origin": origin}
        made.client.eio.http = aiohttp.ClientSession(headers=headers)
        house.devices.append(made)
        if is_let_in:
            await made.connect(CHAT)
            return
        with pytest.raises(RefusedError) as refusal:
            await made.connect(CHAT)
        assert refusal.value.error["code"] == "auth.origin"
