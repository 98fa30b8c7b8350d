"""JWTs of a client's own issuer, over REST and on sockets, with a PEM and with a key set."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from tests.support.clients import CHAT, ROOMS, Api, PythonDevice, RefusedError
from tests.support.issuer import Issuer, own_issuer
from tests.support.nodes import Cluster, eventually
from tests.support.scene import Scene, on_stage


async def device(scene: Scene, token: str, node: int = 0, **auth: str) -> PythonDevice:
    made = scene.keep(PythonDevice("alice", scene.nodes[node].url, None))
    await made.connect(ROOMS, CHAT, auth={"token": token, **auth})
    return made


async def test_a_token_is_good_at_both_doors_and_makes_its_user(scene: Scene) -> None:
    issuer = own_issuer()
    told = await scene.api.patch("/client", {"jwt_issuers": [issuer.registration()]})
    assert told.ok()["jwt_issuers"][0]["pem"] == issuer.pem
    token = issuer.token("newcomer")
    api = Api(scene.http, scene.nodes[1].url, token)
    assert (await api.get("/rooms")).ok()["items"] == []
    made = await device(scene, token, device_id="browser")
    ready = made.of_type("session.ready")[0]["data"]
    assert ready["user"]["user_id"] == "newcomer"
    assert ready["auth"]["device_id"] == "browser"
    assert ready["auth"]["key_id"] is None
    room = await made.create_room()
    await made.say(room["id"], "hello")
    assert (await api.get(f"/rooms/{room['id']}")).ok()["id"] == room["id"]


async def test_a_token_that_no_issuer_of_ours_signed_is_refused(scene: Scene) -> None:
    issuer = own_issuer()
    await scene.api.patch("/client", {"jwt_issuers": [issuer.registration()]})
    forged = Issuer(name=issuer.name).token()
    with pytest.raises(RefusedError) as refused:
        await device(scene, forged)
    assert refused.value.error["code"] == "auth.invalid"
    answer = await Api(scene.http, scene.nodes[0].url, forged).get("/rooms")
    assert (answer.status, answer.body["code"]) == (401, "auth.invalid")


async def test_where_two_clients_share_an_issuer_the_slug_decides(
    scene: Scene, pair: Cluster
) -> None:
    issuer = own_issuer()
    operator = Api(scene.http, scene.nodes[0].url, pair.database.secrets.operator_key)
    other = (await operator.post("/clients", {"name": "Other"})).ok()
    for key in (scene.master_key, other["master_key"]):
        api = Api(scene.http, scene.nodes[0].url, key)
        (await api.patch("/client", {"jwt_issuers": [issuer.registration()]})).ok()
    with pytest.raises(RefusedError):
        await device(scene, issuer.token())
    await device(scene, issuer.token(), client=scene.client["slug"])
    api = Api(scene.http, scene.nodes[0].url, issuer.token())
    assert (await api.get("/rooms")).status == 401
    named = await api.send("GET", "/rooms", headers={"X-Client": other["slug"]})
    assert named.status == 200


async def test_revoking_the_user_ends_tokens_too(scene: Scene) -> None:
    issuer = own_issuer()
    await scene.api.patch("/client", {"jwt_issuers": [issuer.registration()]})
    token = issuer.token("alice")
    made = await device(scene, token, 1)
    (await scene.api.post("/users/alice/revoke")).ok()
    await eventually(lambda: not made.client.connected, within_s=5)
    with pytest.raises(RefusedError) as refused:
        await device(scene, token)
    assert refused.value.error["code"] == "auth.revoked"


async def test_revoking_one_token_ends_it_everywhere_and_no_other(scene: Scene) -> None:
    issuer = own_issuer()
    await scene.api.patch("/client", {"jwt_issuers": [issuer.registration()]})
    lost, kept = issuer.token("alice", jti="lost"), issuer.token("alice", jti="kept")
    there, here = await device(scene, lost, 1), await device(scene, kept, 1)
    api = Api(scene.http, scene.nodes[1].url, lost)
    (await api.get("/rooms")).ok()
    told = await scene.api.post("/client/revoked-tokens", {"jti": "lost"})
    assert (told.status, told.ok()["issuers"]) == (201, [issuer.name])
    await eventually(lambda: not there.client.connected, within_s=5)
    assert here.client.connected
    with pytest.raises(RefusedError) as refused:
        await device(scene, lost)
    assert refused.value.error["code"] == "auth.revoked"
    # What the other node remembered of it is forgotten, too.
    assert (await api.get("/rooms")).body["code"] == "auth.revoked"
    with pytest.raises(RefusedError) as refused:
        await made_with_limbo(scene, issuer)
    assert refused.value.error["code"] == "auth.revoked"
    await here.call(CHAT, "sync", {})
    listed = (await scene.api.get("/client/revoked-tokens")).ok()
    assert [it["jti"] for it in listed["items"]] == ["lost"]


async def made_with_limbo(scene: Scene, issuer: Issuer) -> PythonDevice:
    """Connect with an expired token of the revoked name, as who wants to refresh it does."""
    now = int(time.time())
    return await device(scene, issuer.token("alice", jti="lost", iat=now - 100, exp=now - 60))


async def test_a_token_that_ends_on_an_open_socket_is_treated_like_a_key(scene: Scene) -> None:
    issuer = own_issuer()
    await scene.api.patch("/client", {"jwt_issuers": [issuer.registration()]})
    made = await device(scene, issuer.token(exp=int(time.time()) + 2))
    await eventually(lambda: made.of_type("auth.expiring", ROOMS), within_s=6)
    await asyncio.sleep(2.2)
    assert (await made.refused(CHAT, "sync", {}))["code"] == "auth.expired"
    await made.call(CHAT, "auth.refresh", {"token": issuer.token()})
    await made.call(CHAT, "sync", {})
    bobs = issuer.token("bob")
    assert (await made.refused(CHAT, "auth.refresh", {"token": bobs}))["code"] == "auth.invalid"


@pytest.mark.parametrize(
    ("issuer", "field"),
    [
        ({"pem": "nonsense"}, "PEM"),
        ({"pem": None, "jwks_url": "https://127.0.0.1/keys"}, "jwks_url"),
        ({"pem": None, "jwks_url": "http://169.254.169.254/latest"}, "jwks_url"),
        ({"pem": None, "jwks_url": "https://localhost/keys"}, "jwks_url"),
        ({"pem": None}, "pem or jwks_url"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": ["ES256"]}, "algorithms"),
        ({"jwks_url": "https://example.com/keys"}, "pem or jwks_url"),
    ],
)
async def test_a_bad_registration_is_refused_when_it_is_made(
    scene: Scene, issuer: dict[str, object], field: str
) -> None:
    answer = await scene.api.patch("/client", {"jwt_issuers": [Issuer().registration(**issuer)]})
    assert (answer.status, answer.body["code"]) == (422, "payload.invalid")
    assert field in str(answer.body["errors"])


class TestKeySet:
    @pytest.fixture
    async def near(self, cluster: Callable[..., Cluster]) -> AsyncIterator[Scene]:
        """A node that may ask servers on its own machine."""
        made = cluster(ALLOW_PRIVATE_ADDRESSES="true")
        nodes = await made.nodes("a")
        async with on_stage(nodes, made.database.secrets.operator_key) as scene:
            yield scene

    async def test_keys_are_read_from_their_address(self, near: Scene) -> None:
        issuer, asked = Issuer.elliptic(), 0

        async def keys(_: web.Request) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            return web.json_response({"keys": [issuer.jwk()]})

        app = web.Application()
        app.router.add_get("/keys", keys)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
        registration = issuer.registration(pem=None, jwks_url=url)
        (await near.api.patch("/client", {"jwt_issuers": [registration]})).ok()
        for _ in range(3):
            await device(near, issuer.token())
        assert asked == 1
        with pytest.raises(RefusedError):
            await device(near, issuer.token(headers={"kid": "other"}))
        await runner.cleanup()
