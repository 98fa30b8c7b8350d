"""Every route and every command and every kind of credential, against a table written by hand.

The routes and commands come from the registry: a new one without a row fails.
"""

import asyncio
import re
from typing import Any

import pytest

from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Scope
from chatserver.operations import NAMESPACE_SCOPES, NAMESPACES, build_registry
from tests.support.clients import Api, PythonDevice, RefusedError
from tests.support.issuer import own_issuer
from tests.support.nodes import Cluster
from tests.support.scene import Scene

# O operator, M master key, U any user's credential, a scope: a user's credential that has it.
WHO: dict[str, str] = {
    "analytics.get": "M",
    "assistant.ask": "assistant:use",
    "assistant.cancel": "assistant:use",
    "assistant.catch_up": "chat:read",
    "assistant.follow": "M chat:read",
    "assistant.resume": "assistant:use",
    "assistant.usage": "M",
    "audit.list": "M",
    "auth.confirm": "U",
    "auth.refresh": "U",
    "bot.create": "M",
    "bot.delete": "M",
    "bot.get": "M assistant:use",
    "bot.list": "M assistant:use",
    "bot.search": "M assistant:use",
    "bot.update": "M",
    "client.create": "O",
    "client.disable": "O",
    "client.get": "O",
    "client.list": "O",
    "client.own": "M",
    "client.update": "O",
    "client.update_own": "M",
    "client.usage": "M",
    "client_key.create": "M",
    "client_key.delete": "M",
    "client_key.list": "M",
    "client_key.rotate": "M",
    "delivery.cancel_many": "M",
    "delivery.explain": "M",
    "delivery.export": "M",
    "delivery.get": "M",
    "delivery.list": "M",
    "delivery.replay": "M",
    "delivery.replay_many": "M",
    "endpoint.create": "M",
    "endpoint.delete": "M",
    "endpoint.deliveries": "M",
    "endpoint.events": "M",
    "endpoint.get": "M",
    "endpoint.list": "M",
    "endpoint.replay": "M",
    "endpoint.rotate_secret": "M",
    "endpoint.test": "M",
    "endpoint.update": "M",
    "document.chunks": "M assistant:use",
    "document.create": "M assistant:use",
    "document.delete": "M assistant:use",
    "document.get": "M assistant:use",
    "document.list": "M assistant:use",
    "document.process": "M assistant:use",
    "erasure.get": "M",
    "ledger.get": "M",
    "event.list": "M chat:read",
    "legal_hold.list": "M",
    "legal_hold.place": "M",
    "legal_hold.release": "M",
    "file.complete": "M chat:write",
    "file.create": "M chat:write",
    "file.delete": "M chat:write",
    "file.get": "M chat:read",
    "flag.list": "M chat:read",
    "flag.resolve": "M chat:write",
    "invite.accept": "rooms:write",
    "invite.create": "M rooms:write",
    "invite.list": "M rooms:read",
    "invite.preview": "rooms:read",
    "invite.revoke": "M rooms:write",
    "message.flag": "M chat:write",
    "moderation.rule_create": "M",
    "moderation.rule_delete": "M",
    "moderation.rule_list": "M",
    "moderation.rule_update": "M",
    "moderation.try": "M",
    "support.assign": "M rooms:write",
    "support.close": "M rooms:write",
    "support.queue": "M rooms:read",
    "support.reopen": "M rooms:write",
    "member.add": "M rooms:write",
    "member.list": "M rooms:read",
    "member.put": "M rooms:write",
    "member.update": "M rooms:write",
    "ban.list": "M rooms:write",
    "message.delete": "M chat:write",
    "message.edit": "M chat:write",
    "message.edits": "M chat:read",
    "message.get": "M chat:read",
    "message.history": "M chat:read",
    "message.pin": "M chat:write",
    "message.post": "M chat:write",
    "message.react": "chat:write",
    "message.search": "M chat:read",
    "message.send": "chat:write",
    "message.trace": "M chat:read",
    "message.thread": "M chat:read",
    "message.unpin": "M chat:write",
    "message.unreact": "chat:write",
    "provider.create": "M",
    "provider.delete": "M",
    "provider.get": "M",
    "provider.list": "M",
    "provider.update": "M",
    "provider.verify": "M",
    "presence.set": "rooms:read",
    "presence.watch": "rooms:read",
    "reaction.list": "M chat:read",
    "read.mark": "chat:read",
    "read.summary": "chat:read",
    "read.unmark": "chat:read",
    "room.ban": "M rooms:write",
    "retrieval.get": "M",
    "retrieval.replay": "M",
    "room.add_bot": "M rooms:write",
    "room.bots": "M rooms:read",
    "room.create": "M rooms:write",
    "room.deactivate": "M rooms:write",
    "room.delete": "M rooms:write",
    "room.get": "M rooms:read",
    "room.get_external": "M rooms:read",
    "room.invite": "M rooms:write",
    "room.join": "rooms:write",
    "room.leave": "rooms:write",
    "room.list": "M rooms:read",
    "room.list_all": "M",
    "room.mute": "M rooms:write",
    "room.reactivate": "M rooms:write",
    "room.remove": "M rooms:write",
    "room.remove_bot": "M rooms:write",
    "room.replay": "chat:read",
    "room.snapshot": "M chat:read",
    "room.unban": "M rooms:write",
    "room.unmute": "M rooms:write",
    "room.unwatch": "rooms:read",
    "room.update": "M rooms:write",
    "room.watch": "rooms:read",
    "source.add_secret": "M",
    "source.create": "M",
    "source.delete": "M",
    "source.end_secret": "M",
    "source.event": "M",
    "source.events": "M",
    "source.get": "M",
    "source.list": "M",
    "source.refusals": "M",
    "source.replay": "M",
    "source.replay_event": "M",
    "source.test": "M",
    "source.update": "M",
    "device.delete": "notifications:read",
    "device.list": "notifications:read",
    "device.put": "notifications:read",
    "notification.ack": "notifications:read",
    "notification.cancel": "M",
    "notification.deliveries": "M",
    "notification.get": "M",
    "notification.list_sent": "M",
    "notification.batch_cancel": "M",
    "notification.batch_create": "M",
    "notification.batch_get": "M",
    "notification.batch_list": "M",
    "notification.send": "M",
    "notification.list": "notifications:read",
    "notification.read": "notifications:read",
    "notification.read_all": "notifications:read",
    "preference.get": "notifications:read",
    "preference.put": "notifications:read",
    "preference.update": "notifications:read",
    "suppression.create": "M",
    "suppression.delete": "M",
    "suppression.get": "M",
    "suppression.list": "M",
    "sync": "chat:read",
    "token.list_revoked": "M",
    "token.revoke": "M",
    "typing.start": "chat:write",
    "typing.stop": "chat:write",
    "session.cancel": "M assistant:use",
    "session.create": "M assistant:use",
    "session.delete": "M assistant:use",
    "session.export": "M assistant:use",
    "session.favorite": "M assistant:use",
    "session.get": "M assistant:use",
    "session.import": "M assistant:use",
    "session.list": "M assistant:use",
    "session.message": "M assistant:use",
    "session.messages": "M assistant:use",
    "session.resume": "M assistant:use",
    "session.search": "M assistant:use",
    "session.update": "M assistant:use",
    "training.delete": "M",
    "training.get": "M",
    "training.list": "M",
    "training.queue": "M",
    "training.reembed": "M",
    "user.erase": "M",
    "user.export": "M profile:read",
    "user.get": "M profile:read",
    "user.list": "M",
    "user.login": "M",
    "user.me": "profile:read",
    "user.put": "M",
    "user.revoke": "M",
    "user.update": "M profile:write",
    "user_key.delete": "M profile:write",
    "user_key.list": "M profile:read",
}
REGISTRY = build_registry()
SCOPES = [scope.value for scope in Scope]
# What gets nobody in, and the code that says why.
NOBODY = {
    "none": "auth.missing",
    "garbage": "auth.invalid",
    "a key with a typing error": "auth.invalid",
    "an expired key": "auth.expired",
    "a revoked key": "auth.revoked",
    "a forged JWT": "auth.invalid",
    "an expired JWT": "auth.expired",
}
SOMEBODY = ["operator", "master", *SCOPES, *(f"JWT {scope}" for scope in SCOPES), "JWT without"]


def may(operation: str, kind: str) -> bool:
    """Tell by the table whether a kind of credential may do something."""
    allowed = WHO[operation].split()
    if kind in ("operator", "master"):
        return {"operator": "O", "master": "M"}[kind] in allowed
    return "U" in allowed or kind.removeprefix("JWT ") in allowed


def test_the_table_has_a_row_for_all_that_callers_can_do_and_for_nothing_else() -> None:
    assert set(WHO) == set(REGISTRY.operations)


@pytest.fixture
async def credentials(scene: Scene, pair: Cluster) -> dict[str, str | None]:
    """One of each kind, of one tenant."""
    issuer = own_issuer()
    registration = issuer.registration(scope_claim="scope")
    (await scene.api.patch("/client", {"jwt_issuers": [registration]})).ok()
    keys: dict[str, str | None] = {
        "operator": pair.database.secrets.operator_key,
        "master": scene.master_key,
        "none": None,
        "garbage": "nonsense",
        "a forged JWT": own_issuer().token(),
        "JWT without": issuer.token(),
    }
    for scope in SCOPES:
        issued = await scene.login("alice", scopes=[scope], rotation="explicit")
        keys[scope] = issued["key"]
        keys[f"JWT {scope}"] = issuer.token(scope=scope)
    typo: str = (await scene.login("alice"))["key"]
    keys["a key with a typing error"] = typo[:-1] + ("a" if typo[-1] != "a" else "b")
    keys["a revoked key"] = (await scene.login("mallory"))["key"]
    (await scene.api.post("/users/mallory/revoke")).ok()
    keys["an expired key"] = (await scene.login("late", ttl_s=1))["key"]
    now = issuer.claims()["iat"]
    reading = " ".join(scope.value for scope in NAMESPACE_SCOPES.values())
    keys["an expired JWT"] = issuer.token("late", scope=reading, iat=now - 100, exp=now - 60)
    await asyncio.sleep(1.1)
    return keys


def path_of(route: str) -> str:
    """Fill a path with names of nobody and nothing."""
    route = route.replace("{external_id}", "nobody")
    return re.sub(r"\{[a-z_]+\}", lambda _: str(uuid7()), route)


async def test_every_route(scene: Scene, credentials: dict[str, str | None]) -> None:
    wrong = []
    for route in REGISTRY.routes:
        path = path_of(route.path)
        for kind, key in credentials.items():
            api = Api(scene.http, scene.nodes[0].url, key)
            body: dict[str, Any] | None = None if route.method in ("GET", "DELETE") else {}
            answer = await api.send(route.method, path, body)
            code = answer.body.get("code") if isinstance(answer.body, dict) else None
            if kind in NOBODY:
                is_right = (answer.status, code) == (401, NOBODY[kind])
            elif may(route.operation, kind):
                is_right = answer.status not in (401, 403) and answer.status < 500
            else:
                is_right = (answer.status, code) == (403, "auth.scope_missing")
            if not is_right:
                wrong.append((route.method, route.path, kind, answer.status, code))
    assert wrong == []


async def test_every_command(scene: Scene, credentials: dict[str, str | None]) -> None:
    wrong = []
    commands = [
        (namespace, name)
        for name, operation in REGISTRY.operations.items()
        for namespace in operation.namespaces
    ]
    assert len(commands) > 20
    for kind in (it for it in SOMEBODY if it not in ("operator", "master")):
        listening = [
            namespace
            for namespace, scope in NAMESPACE_SCOPES.items()
            if kind.removeprefix("JWT ") == scope.value
        ]
        for namespace in NAMESPACES:
            if namespace not in listening:
                alone = PythonDevice("alice", scene.nodes[0].url, credentials[kind])
                with pytest.raises(RefusedError) as told:
                    await alone.connect(namespace)
                assert told.value.error["code"] == "auth.scope_missing", (namespace, kind)
        # Whoever is in already may go on with less: then only commands are held to the scopes.
        full = (await scene.login("alice"))["key"]
        device = scene.keep(PythonDevice("alice", scene.nodes[0].url, full))
        await device.connect(*NAMESPACES)
        await device.call(NAMESPACES[0], "auth.refresh", {"token": credentials[kind]})
        for namespace, name in commands:
            ack: dict[str, Any] = await device.emit(namespace, name, {})
            code = None if ack["ok"] else ack["error"]["code"]
            refused = code in ("auth.scope_missing", "auth.expired", "auth.missing")
            if refused == may(name, kind):
                wrong.append((namespace, name, kind, code))
        await device.close()
    assert wrong == []


@pytest.mark.parametrize("kind", ["operator", "master", *NOBODY])
async def test_no_namespace_opens_to_anything_else(
    scene: Scene, credentials: dict[str, str | None], kind: str
) -> None:
    for namespace in NAMESPACES:
        device = PythonDevice("alice", scene.nodes[0].url, credentials[kind])
        auth = {} if kind == "none" else {"token": credentials[kind]}
        if kind.startswith("an expired"):
            # Let in to be refreshed, and to nothing else.
            await device.client.connect(
                device.url, auth=auth, namespaces=[namespace], transports=["websocket"]
            )
            refused = await device.refused(namespace, "room.list", {})
            assert refused["code"] == "auth.expired"
            await device.close()
            continue
        with pytest.raises(RefusedError) as told:
            await device.connect(namespace, auth=auth)
        assert told.value.error["code"] == NOBODY.get(kind, "auth.invalid")
