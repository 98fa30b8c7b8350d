"""Clients, users and keys as callers of the REST interface meet them."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chatserver.api_keys.errors import (
    AuthExpiredError,
    AuthInvalidError,
    AuthMissingError,
    AuthRevokedError,
)
from chatserver.api_keys.http import ROUTES as KEY_ROUTES
from chatserver.api_keys.http import ApiKeysHttp
from chatserver.clients.http import CLIENT_ROUTES, ClientKeysHttp, ClientsHttp
from chatserver.clients.http import KEY_ROUTES as MASTER_KEY_ROUTES
from chatserver.infra.idempotency import IdempotencyStore
from chatserver.infra.secrets import SecretBox
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.transport.answers import answers
from chatserver.transport.credentials import Sender
from chatserver.transport.http import RestDoor
from chatserver.transport.registry import Registry
from chatserver.transport.server import Runner
from chatserver.users.http import ROUTES as USER_ROUTES
from chatserver.users.http import UsersHttp
from tests.support.keys import KeyHouse
from tests.support.servers import Database as Address


class Api:
    """Calls of one caller; a call gives the status and the JSON."""

    def __init__(self, http: aiohttp.ClientSession, key: str | None) -> None:
        self._http = http
        self._key = key

    def to(self, key: str | None) -> "Api":
        return Api(self._http, key)

    async def __call__(
        self, method: str, path: str, json: Any = None, **headers: str
    ) -> tuple[int, Any]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self._key is not None:
            given["Authorization"] = f"Bearer {self._key}"
        url = f"/api/v1{path}"
        async with self._http.request(method, url, json=json, headers=given) as answer:
            return answer.status, await answer.json(content_type=None)


async def nothing_waits(_: Principal) -> dict[str, Any]:
    return {}


@pytest.fixture
async def operator(house: KeyHouse, database: Address) -> AsyncIterator[Api]:
    registry = Registry(
        auth_errors=(AuthMissingError, AuthInvalidError, AuthExpiredError, AuthRevokedError)
    )
    registry.add(ClientsHttp(house.open_clients), routes=CLIENT_ROUTES)
    registry.add(ClientKeysHttp(house.open_master_keys), routes=MASTER_KEY_ROUTES)
    registry.add(UsersHttp(house.open_users), routes=USER_ROUTES)
    registry.add(ApiKeysHttp(house.open_keys, nothing_waits), routes=KEY_ROUTES)

    async def identify(token: str | None, sender: Sender) -> Principal:
        return await house.identifier.identify(token, door="rest")

    store = IdempotencyStore(house.database, SecretBox.from_text(["key"]))
    app = web.Application(middlewares=[answers()])
    RestDoor(registry, identify=identify, store=store).attach(app)
    runner = Runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as http:
        yield Api(http, database.secrets.operator_key)
    await runner.cleanup()


@pytest.fixture
async def master(operator: Api) -> Api:
    status, made = await operator("POST", "/clients", {"name": "Acme"})
    assert status == 201
    return operator.to(made["master_key"])


async def test_from_the_operator_to_a_users_profile(operator: Api) -> None:
    status, made = await operator("POST", "/clients", {"name": "Acme"})
    assert (status, sorted(made)) == (201, ["id", "master_key", "name", "slug"])
    master = operator.to(made["master_key"])
    assert (await master("PUT", "/users/alice", {"display_name": "Alice"}))[0] == 201
    assert (await master("PUT", "/users/alice", {"display_name": "Alice"}))[0] == 200
    status, issued = await master("POST", "/users/alice/login", {"device_id": "phone"})
    assert status == 201
    assert sorted(issued) == ["device_id", "expires_at", "key", "key_id", "user"]
    alice = operator.to(issued["key"])
    status, me = await alice("GET", "/me")
    assert (status, me["external_id"], me["display_name"]) == (200, "alice", "Alice")
    assert me["key"]["key_id"] == issued["key_id"]
    status, changed = await alice("PATCH", "/users/alice", {"avatar_url": "https://a.example/a"})
    assert (status, changed["display_name"], changed["avatar_url"]) == (
        200,
        "Alice",
        "https://a.example/a",
    )
    assert (await alice("DELETE", f"/users/alice/keys/{issued['key_id']}"))[0] == 204
    status, refused = await alice("GET", "/me")
    assert (status, refused["code"], refused["details"]) == (
        401,
        "auth.revoked",
        {"action": "login"},
    )


async def test_a_repeated_login_with_an_idempotency_key_gives_the_same_key(master: Api) -> None:
    first = await master("POST", "/users/alice/login", {}, Idempotency_Key="one")
    again = await master("POST", "/users/alice/login", {}, Idempotency_Key="one")
    assert first == again
    assert (await master("GET", "/users/alice/keys"))[1]["total"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((route.method, route.path) for route in (*CLIENT_ROUTES, *MASTER_KEY_ROUTES)),
        ("GET", "/users"),
        ("PUT", "/users/{external_id}"),
        ("POST", "/users/{external_id}/login"),
        ("POST", "/users/{external_id}/revoke"),
    ],
)
async def test_administration_is_closed_to_a_scoped_key(
    master: Api, method: str, path: str
) -> None:
    _, issued = await master("POST", "/users/alice/login", {})
    alice = master.to(issued["key"])
    full = path.format(id=uuid7(), external_id="alice")
    json: dict[str, Any] | None = {} if method in {"POST", "PUT", "PATCH"} else None
    status, refused = await alice(method, full, json)
    assert (status, refused["code"]) == (403, "auth.scope_missing")
    assert (await alice("GET", "/me"))[0] == 200


async def test_a_master_key_is_no_operator_and_an_operator_no_master(
    operator: Api, master: Api
) -> None:
    assert (await master("GET", "/clients"))[1]["code"] == "auth.scope_missing"
    assert (await operator("GET", "/client"))[1]["code"] == "auth.scope_missing"
    assert (await master("GET", "/me"))[1]["code"] == "auth.scope_missing"


async def test_a_key_without_the_scope_reads_and_writes_no_profile(master: Api) -> None:
    _, issued = await master("POST", "/users/alice/login", {"scopes": ["chat:read"]})
    alice = master.to(issued["key"])
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/me", None),
        ("GET", "/users/alice", None),
        ("PATCH", "/users/alice", {"display_name": "x"}),
        ("GET", "/users/alice/keys", None),
        ("DELETE", f"/users/alice/keys/{issued['key_id']}", None),
    ]
    for method, path, json in asked:
        status, refused = await alice(method, path, json)
        assert (status, refused["code"]) == (403, "auth.scope_missing")


async def test_foreign_unknown_and_malformed_ids_are_told_alike(operator: Api, master: Api) -> None:
    _, other = await operator("POST", "/clients", {"name": "Other"})
    others = operator.to(other["master_key"])
    _, foreign = await others("POST", "/users/bob/login", {})
    _, issued = await master("POST", "/users/alice/login", {})
    alice = master.to(issued["key"])
    for method, path, json in (
        ("GET", "/users/{}", None),
        ("PATCH", "/users/{}", {"display_name": "x"}),
        ("GET", "/users/{}/keys", None),
        ("DELETE", "/users/{}/keys/" + foreign["key_id"], None),
    ):
        for caller in (master, alice):
            bodies = []
            for name in ("bob", "nobody"):
                status, body = await caller(method, path.format(name), json)
                del body["trace_id"]
                bodies.append((status, body))
            assert bodies[0] == bodies[1]
            assert (bodies[0][0], bodies[0][1]["code"]) == (404, "user.not_found")
    for name in (foreign["key_id"], str(uuid7()), "x"):
        status, body = await master("DELETE", f"/users/alice/keys/{name}")
        assert (status, body["code"]) == (404, "key.not_found")
    assert (await others("GET", "/users/bob"))[0] == 200


@pytest.mark.parametrize(
    ("json", "field"),
    [
        ({"device_id": "a b"}, "device_id"),
        ({"device_id": ""}, "device_id"),
        ({"scopes": ["chat:fly"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "chat:read"}, "scopes"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": 1.5}, "ttl_s"),
        ({"ttl_s": 90 * 86_400 + 1}, "ttl_s"),
        ({"rotation": "never"}, "rotation"),
        ({"replace": "yes"}, "replace"),
        ({"client_id": "x"}, "client_id"),
        ({"device_id": "a\u0000"}, "device_id"),
    ],
)
async def test_a_bad_login_names_the_field_and_makes_nothing(
    house: KeyHouse, master: Api, json: dict[str, Any], field: str
) -> None:
    status, refused = await master("POST", "/users/alice/login", json)
    assert (status, refused["code"]) == (422, "payload.invalid")
    assert [error["field"] for error in refused["errors"]] == [field]
    assert await house.rows("select id from app_user") == []


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "auth.missing"),
        ("", "auth.missing"),
        ("x", "auth.invalid"),
        ("csu_x", "auth.invalid"),
        ("a.b.c", "auth.invalid"),
    ],
)
async def test_what_is_no_key_gets_its_code(operator: Api, key: str | None, code: str) -> None:
    status, refused = await operator.to(key)("GET", "/me")
    assert (status, refused["code"]) == (401, code)
