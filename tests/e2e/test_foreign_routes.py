"""A walk over every route with ids that are none of the caller's business.

A foreign id, an unknown one and one that can't be an id must look the same, and nothing that one
client stored may ever be told to another. A new route without an entry here fails.
"""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import pytest

from chatserver.kernel.principal import Caller
from chatserver.operations import build_registry
from chatserver.transport.registry import Operation, Route
from tests.support.clients import CHAT, Answer, Api
from tests.support.houses import UNKNOWN, House
from tests.support.scene import Scene

REGISTRY: Final = build_registry()
MALFORMED: Final = ("nonsense!", "00000000", "ünïcode", "a\x00b", "a/b", "..", "x" * 2000, "%")

# Names nothing that is anybody's.
EMOJI: Final = "{emoji}"
# What members of paths are ids of; `id` depends on what stands before it.
KINDS: Final = {
    "session_id": "session",
    "room_id": "room",
    "bot_id": "bot",
    "document_id": "document",
    "source_id": "document",
    "job_id": "training job",
    "retrieval_id": "retrieval",
    "message_id": "message",
    "file_id": "file",
    "user_id": "user",
    "external_id": "user",
    "invite_id": "invite",
    "code": "code",
    "rule_id": "rule",
    "flag_id": "flag",
    "/rooms/by-external/{external_id}": "room name",
    "/clients/{id}": "client",
    "/client/keys/{id}": "master key",
    "/client/legal-holds/{id}": "hold",
    "/providers/{id}": "provider",
    "/users/{external_id}/keys/{id}": "user key",
    "/webhooks/sources/{id}": "inbound source",
    "/webhooks/endpoints/{id}": "webhook endpoint",
    "/deliveries/{id}": "delivery",
    "secret_id": "source secret",
    "/suppressions/{id}": "suppression",
    "/notifications/{id}": "notification",
    "/notifications/batches/{id}": "notification batch",
    "event_id": "inbound event",
}
# A right body for each operation that takes one, so that only the ids are wrong.
BODIES: Final[dict[str, dict[str, Any]]] = {
    "client.update": {"name": "taken over"},
    "client_key.rotate": {"now": True},
    "user.update": {"display_name": "taken over"},
    "user.revoke": {},
    "provider.update": {"name": "taken over"},
    "provider.verify": {},
    "endpoint.update": {"description": "taken over"},
    "endpoint.rotate_secret": {},
    "endpoint.test": {},
    "endpoint.replay": {"missing": True},
    "delivery.replay": {},
    "notification.cancel": {},
    "notification.batch_cancel": {},
    "room.update": {"title": "taken over"},
    "room.deactivate": {},
    "room.reactivate": {},
    "room.join": {},
    "room.leave": {},
    "member.add": {"user_ids": ["intruder"]},
    "member.put": {"role": "owner"},
    "member.update": {"role": "owner"},
    "invite.create": {},
    "invite.accept": {},
    "support.assign": {"user_id": None},
    "support.close": {},
    "support.reopen": {},
    "message.flag": {},
    "flag.resolve": {"action": "delete"},
    "moderation.rule_update": {"enabled": False},
    "message.edit": {"content": "taken over"},
    "message.react": {},
    "message.pin": {},
    "read.mark": {},
    "read.unmark": {},
    "room.mute": {},
    "room.ban": {},
    "source.update": {"description": "taken over"},
    "source.add_secret": {"secret": "intruder:secret"},
    "source.replay": {},
    "source.replay_event": {},
    "source.test": {"headers": {}, "body": "{}"},
    "file.complete": {},
    "message.post": {"content": "I was here", "client_msg_id": "intruder"},
    "bot.update": {"name": "taken over"},
    "document.process": {},
    "retrieval.replay": {},
    "training.reembed": {},
    "room.add_bot": {"paused": True},
    "session.update": {"title": "taken over"},
    "session.favorite": {},
    "session.message": {"content": "I was here", "generate": False},
    "session.resume": {},
    "session.cancel": {},
}
QUERIES: Final = {"bot.search": {"q": "anything"}}
# These make what they name, each client for itself.
MAKING: Final = {"user.put", "user.login"}
# These name nothing; what they list must be the caller's own.
NAMELESS: Final = {
    *("client.create", "client.list", "client.own", "client.update_own"),
    *("client_key.list", "client_key.create", "user.list", "user.me"),
    *("room.create", "room.list", "room.list_all"),
    *("audit.list", "client.usage", "legal_hold.list", "token.list_revoked"),
    # Name things in their bodies: tests/integration/privacy/test_holds.py, and for tokens
    # tests/integration/api_keys/test_bearers.py; and tests/e2e/test_tenants.py walks both.
    *("legal_hold.place", "token.revoke"),
    *("client.usage", "read.summary", "support.queue", "flag.list"),
    *("file.create", "message.search"),
    *("moderation.rule_create", "moderation.rule_list", "moderation.try"),
    *("provider.create", "provider.list"),
    *("source.create", "source.list"),
    *("audit.list", "client.usage"),
    *("endpoint.create", "endpoint.list", "ledger.get"),
    # By filters, of the caller's own: tests/integration/deliveries/test_many.py.
    *("delivery.list", "delivery.export", "delivery.cancel_many", "delivery.replay_many"),
    "analytics.get",
    *("source.create", "source.list", "suppression.create", "suppression.list"),
    *("notification.send", "notification.list_sent"),
    *("notification.batch_create", "notification.batch_list"),
    *("notification.list", "notification.ack", "notification.read", "notification.read_all"),
    *("device.put", "device.list", "device.delete"),
    *("preference.get", "preference.put", "preference.update"),
    *("audit.list", "client.usage", "assistant.usage"),
    *("bot.create", "bot.list", "document.create", "document.list"),
    *("training.queue", "training.list"),
    *("session.create", "session.list", "session.search", "session.import"),
}


def path_members(route: Route) -> dict[str, str]:
    """Give the kind of thing that each member of a path names."""
    found = {}
    for name in re.findall(r"{(\w+)}", route.path.replace(EMOJI, "")):
        upto = route.path[: route.path.index(f"{{{name}}}")] + f"{{{name}}}"
        found[name] = KINDS.get(upto) or KINDS[name]
    return found


NAMING: Final = [
    route for route in REGISTRY.routes if path_members(route) and route.operation not in MAKING
]


class Intruder:
    """Somebody who holds a real key, and what it was told."""

    def __init__(self, name: str, caller: Caller, api: Api, own: dict[str, str]) -> None:
        self.name = name
        self.caller = caller
        self.api = api
        self.own = own


@pytest.fixture
async def intruders(theirs: House, mine: House) -> list[Intruder]:
    """Another client's master key, another client's user, and the same client's stranger."""
    return [
        Intruder("master", Caller.MASTER, mine.scene.api, mine.ids),
        Intruder("user", Caller.USER, await mine.scene.as_user("onlyb"), mine.ids),
        Intruder(
            "stranger",
            Caller.USER,
            await theirs.scene.as_user("stranger"),
            UNKNOWN | {"user": "stranger"},
        ),
    ]


async def ask(api: Api, route: Route, members: dict[str, str]) -> Answer:
    path = route.path.replace(EMOJI, quote("👍"))
    for name, text in members.items():
        path = path.replace(f"{{{name}}}", quote(text, safe=""))
    body = None
    if route.method in {"POST", "PUT", "PATCH"}:
        body = BODIES[route.operation]
    return await api.send(route.method, path, body, query=QUERIES.get(route.operation))


def without_trace(answer: Answer) -> tuple[int, Any]:
    said = dict(answer.body) if isinstance(answer.body, dict) else answer.body
    assert isinstance(said, dict), said
    said.pop("trace_id")
    return answer.status, said


def variations(
    route: Route, own: dict[str, str], foreign: dict[str, str]
) -> Iterator[tuple[dict[str, str], dict[str, str], str]]:
    """Give pairs of path members, one foreign and one unknown, and which of them it is about."""
    kinds = path_members(route)
    yield (
        {name: foreign[kind] for name, kind in kinds.items()},
        {name: UNKNOWN[kind] for name, kind in kinds.items()},
        next(iter(kinds)),
    )
    if len(kinds) > 1:
        for about, kind in kinds.items():
            others = {name: own[other] for name, other in kinds.items() if name != about}
            yield others | {about: foreign[kind]}, others | {about: UNKNOWN[kind]}, about


class TestRoutes:
    async def test_every_route_is_walked(self, scene: Scene) -> None:
        served = (await scene.api.send("GET", "/openapi.json")).body
        prefix = "/api/v1"
        documented = {
            (method.upper(), path.removeprefix(prefix))
            for path, methods in served["paths"].items()
            for method in methods
            if path.startswith(prefix) and method in {"get", "post", "put", "patch", "delete"}
        }
        walked = {(route.method, route.path) for route in NAMING}
        rest = {
            (route.method, route.path)
            for route in REGISTRY.routes
            if route.operation in MAKING | NAMELESS
        }
        assert documented == walked | rest
        assert not walked & rest
        taking = {route.operation for route in NAMING if route.method in {"POST", "PUT", "PATCH"}}
        assert taking == set(BODIES)

    async def test_foreign_unknown_and_malformed_ids_are_the_same_404(
        self, theirs: House, intruders: list[Intruder]
    ) -> None:
        before = await theirs.state()
        watching = await theirs.scene.device(theirs.ids["user"], 1)
        for route in NAMING:
            operation = REGISTRY.operations[route.operation]
            for intruder in intruders:
                # Whoever of the client holds a code comes in by it: that is what it is for.
                if intruder.name != "stranger" or "code" not in path_members(route):
                    await self._walk(route, operation, intruder, theirs)
        assert await theirs.state() == before
        assert [event for event, _ in watching.events[CHAT]] == ["session.ready"]
        assert watching.client.connected

    async def _walk(
        self, route: Route, operation: Operation, intruder: Intruder, theirs: House
    ) -> None:
        where = (route.method, route.path, intruder.name)
        for foreign, unknown, about in variations(route, intruder.own, theirs.ids):
            told = without_trace(await ask(intruder.api, route, foreign))
            assert told == without_trace(await ask(intruder.api, route, unknown)), where
            assert theirs.canary not in str(told), where
            if intruder.caller in operation.callers:
                assert told[0] == 404, (where, told)
                assert told[1]["code"].endswith(".not_found"), (where, told)
            else:
                assert (told[0], told[1]["code"]) == (403, "auth.scope_missing"), (where, told)
            if len(foreign) > 1 and foreign[about] == unknown[about]:
                continue
            for bad in MALFORMED:
                answer = await ask(intruder.api, route, unknown | {about: bad})
                if bad in {"a/b", ".."}:
                    # This may be another path, or none: `/rooms/../bots` is the caller's own bots.
                    assert answer.status in {200, 403, 404, 405, 422}, (where, bad, answer)
                else:
                    assert answer.status == told[0], (where, bad, answer)
                    # Of two ids in a path the one that is no id need not be the first missed.
                    kind = told[1]["code"].rpartition(".")[2]
                    assert answer.body["code"].rpartition(".")[2] == kind, (where, bad, answer)
                assert theirs.canary not in str(answer.body)

    async def test_what_is_listed_is_the_caller_s_own(
        self, theirs: House, intruders: list[Intruder]
    ) -> None:
        for route in REGISTRY.routes:
            if route.operation in NAMELESS and route.method == "GET":
                for intruder in intruders:
                    query = {"q": theirs.canary} if route.operation == "message.search" else None
                    answer = await intruder.api.send("GET", route.path, query=query)
                    assert theirs.canary not in str(answer.body), (route.path, intruder.name)
                    if route.operation != "client.list":
                        allowed = intruder.caller in REGISTRY.operations[route.operation].callers
                        assert answer.status == (200 if allowed else 403), (route, answer)
                    assert theirs.ids["room"] not in str(answer.body)
        found = await intruders[0].api.get("/rooms/all", q=theirs.canary[:12])
        assert found.ok()["items"] == []

    async def test_names_are_each_client_s_own(self, theirs: House, mine: House) -> None:
        before = await theirs.state()
        body = {"type": "group", "external_id": theirs.ids["room name"]}
        room = await mine.scene.api.post("/rooms", body)
        assert room.status == 201
        assert room.body["id"] != theirs.ids["room"]
        headers = {"Idempotency-Key": theirs.canary}
        pair = [
            await house.scene.api.send("POST", "/rooms", {"type": "group"}, headers=headers)
            for house in (theirs, mine)
        ]
        assert pair[0].body["id"] != pair[1].body["id"]
        (await theirs.scene.api.delete(f"/rooms/{pair[0].body['id']}")).ok()
        made = await mine.scene.api.put(f"/users/{theirs.ids['user']}", {"display_name": "Mine"})
        assert made.status == 201
        assert theirs.canary not in str(made.body)
        login = await mine.scene.api.post(f"/users/{theirs.ids['user']}/login", {})
        assert theirs.canary not in str(login.body)
        key = Api(mine.scene.http, mine.scene.nodes[0].url, login.body["key"])
        assert (await key.get(f"/rooms/{theirs.ids['room']}")).status == 404
        assert await theirs.state() == before

    async def test_other_clients_people_are_nobody(self, theirs: House, mine: House) -> None:
        own, api = mine.ids["room"], mine.scene.api
        for name in (theirs.ids["user"], "nobody-at-all"):
            tries = [
                await api.post("/rooms", {"type": "group", "member_ids": [name]}),
                await api.post(f"/rooms/{own}/members", {"user_ids": [name]}),
                await api.put(f"/rooms/{own}/members/{name}"),
                await api.post(f"/rooms/{own}/messages", {"content": "x", "sender_id": name}),
            ]
            assert [(each.status, each.body["code"]) for each in tries] == [
                (404, "user.not_found")
            ] * 4
        reply = {"content": "x", "reply_to": theirs.ids["message"]}
        answer = await api.post(f"/rooms/{own}/messages", reply)
        assert (answer.status, answer.body["code"]) == (404, "message.not_found")
