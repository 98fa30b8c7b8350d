"""What was revoked ends on every node also while Redis is away: each node asks PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import pytest

from chatserver.settings import Settings
from tests.support.clients import CHAT, ROOMS, Api, PythonDevice, RefusedError
from tests.support.issuer import own_issuer
from tests.support.nodes import Cluster, Node, eventually
from tests.support.proxy import Proxy
from tests.support.scene import Scene, on_stage
from tests.support.servers import Database

# The bound that docs/keys.md gives; these nodes look more often than that.
BOUND_S = 30.0
SWEEP_S = 1.0


@dataclass
class Cut:
    """Two nodes without Redis. Whatever is done is done on the first, who is there is on both."""

    scene: Scene
    operator: Api

    async def everywhere(self, token: str, **auth: str) -> list[PythonDevice]:
        return [await self.connect(node, token, **auth) for node in self.scene.nodes]

    async def connect(self, node: Node, token: str, **auth: str) -> PythonDevice:
        made = self.scene.keep(PythonDevice("somebody", node.url, None))
        return await made.connect(ROOMS, CHAT, auth={"token": token, **auth})

    async def ended(self, devices: list[PythonDevice], token: str) -> None:
        """Wait until these are closed, and see that nobody comes back with the token."""
        await eventually(
            lambda: not any(device.client.connected for device in devices),
            within_s=BOUND_S,
            why="the sockets of what was revoked are closed",
        )
        for node in self.scene.nodes:
            with pytest.raises(RefusedError) as refused:
                await self.connect(node, token)
            assert refused.value.error is not None
            assert refused.value.error["code"] == "auth.revoked"


@pytest.fixture
async def cut(cluster: Callable[..., Cluster], database: Database) -> AsyncIterator[Cut]:
    redis = urlsplit(database.redis_url)
    async with Proxy("127.0.0.1", redis.port or 0) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        made = cluster(REDIS_URL=url, QUEUE_REDIS_URL=url, REVOCATION_SWEEP_S=str(SWEEP_S))
        nodes = await made.nodes("a", "b")
        operator_key = database.secrets.operator_key
        async with on_stage(nodes, operator_key) as scene:
            proxy.refuse()
            for node in nodes:
                await eventually(partial(is_alone, node), why="the node misses Redis")
            yield Cut(scene, Api(scene.http, nodes[0].url, operator_key))


async def is_alone(node: Node) -> bool:
    status, body = await node.health()
    return status == 200 and body["status"] == "degraded"


async def test_every_revocation_reaches_every_node_without_redis(cut: Cut) -> None:
    scene, issuer = cut.scene, own_issuer()
    (await scene.api.patch("/client", {"jwt_issuers": [issuer.registration()]})).ok()
    explicit = {"rotation": "explicit"}
    one = await scene.login("alice", device_id="lost", **explicit)
    stays = (await scene.login("alice", device_id="kept", **explicit))["key"]
    replaced = (await scene.login("erin", device_id="tab", **explicit))["key"]
    whole = (await scene.login("bob", **explicit))["key"]
    single, tokens = issuer.token("carol", jti="t1"), issuer.token("dave")
    ending = {
        name: await cut.everywhere(token)
        for name, token in {
            "key": one["key"],
            "replaced": replaced,
            "user": whole,
            "token": single,
            "tokens": tokens,
        }.items()
    }
    staying = await cut.everywhere(stays) + await cut.everywhere(issuer.token("carol", jti="t2"))

    (await scene.api.delete(f"/users/alice/keys/{one['key_id']}")).ok()
    await scene.login("erin", device_id="tab", replace=True)
    (await scene.api.post("/users/bob/revoke")).ok()
    (await scene.api.post("/users/dave/revoke")).ok()
    (await scene.api.post("/client/revoked-tokens", {"jti": "t1"})).ok()

    await asyncio.gather(
        cut.ended(ending["key"], one["key"]),
        cut.ended(ending["replaced"], replaced),
        cut.ended(ending["user"], whole),
        cut.ended(ending["token"], single),
        cut.ended(ending["tokens"], tokens),
    )
    for device in staying:
        assert device.client.connected
        await device.call(CHAT, "sync", {})

    # And in the end all that the application has.
    (await cut.operator.delete(f"/clients/{scene.client['id']}")).ok()
    await cut.ended(staying, stays)


def test_the_interval_of_production_keeps_the_bound() -> None:
    field = Settings.model_fields["revocation_sweep_s"]
    # With the jitter of a fifth, and what the question itself may take.
    assert field.default * 1.2 <= BOUND_S
    assert [it.le for it in field.metadata if hasattr(it, "le")] == [field.default]
