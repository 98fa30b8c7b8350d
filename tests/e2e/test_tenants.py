"""Nobody gets anything of another tenant, nor of somebody else's rooms: a walk over everything.

Every payload of the tenant that is looked at carries a canary; the canary must not turn up in any
answer, fact, refusal or log line that another gets, and what is asked about a foreign thing must be
answered exactly as about one that never was.
"""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from chatserver.kernel.principal import Caller
from chatserver.operations import NAMESPACES, build_registry
from chatserver.transport.registry import Operation, Route
from tests.support.clients import CHAT, ROOMS, PythonDevice, RawSocket, RefusedError
from tests.support.everything import rows_with
from tests.support.inbox import put_in_inbox
from tests.support.issuer import own_issuer
from tests.support.nodes import Cluster, Node
from tests.support.scene import Scene, on_stage
from tests.support.tenants import (
    MORE_PROBES,
    PEOPLE,
    PROBES,
    Party,
    Payload,
    Ref,
    ask,
    filled,
    never_was,
    refs_in,
    refusal_of,
    without,
)
from tests.support.uploads import upload
from tests.support.vendors import BASIC_SOURCE, Vendor

REGISTRY = build_registry()
MALFORMED = "not an id!"
EVERYTHING = [
    *((name, payload) for name, payload in PROBES.items() if name in REGISTRY.operations),
    *MORE_PROBES,
]
NOUNS = sorted({operation.noun for operation in REGISTRY.operations.values()})
# Several to a walk: furnishing her tenant takes longer than looking around in it.
GROUPS = ["-".join(NOUNS[at : at + 4]) for at in range(0, len(NOUNS), 4)]


@dataclass
class Walk:
    """Alice of one tenant is looked at; her tenant's ally, and Bert of another, look.

    `canary` is in everything of hers, `name_canary` in what her application calls things.
    """

    canary: str
    name_canary: str
    alice: Party
    foreign: dict[Ref, str]
    lookers: list[Party]
    others: list[PythonDevice]
    nodes: list[Node]
    client_id: str
    admin_url: str

    def see(self, text: str, where: object) -> None:
        """Look at what somebody got who may get nothing of hers."""
        assert self.canary not in text, (where, text)
        assert self.name_canary not in text, (where, text)

    async def her_rows(self) -> dict[str, list[str]]:
        """What her tenant has stored with the canary in it, wherever it never changes by itself."""
        found = await rows_with(self.admin_url, self.canary)
        lasting = ("room", "message", "room_event", "client_key")
        return {
            table: sorted(row for row in found[table] if self.client_id in row)
            for table in lasting
            if table in found
        }


async def _party(scene: Scene, name: str, node: int, *, profile: Any = None) -> Party:
    (await scene.api.put(f"/users/{name}", profile or {})).ok()
    device = await scene.device(name, node)
    return Party(name, await scene.as_user(name, node), scene.api, device)


async def _things_of(
    alice: Party, scene: Scene, canary: str, name_canary: str, admin_url: str
) -> dict[Ref, str]:
    """Let Alice have one of everything, each with the canary in it."""
    made = await scene.api.post(
        "/rooms",
        {
            "type": "group",
            "title": canary,
            "external_id": f"room-{name_canary}",
            "metadata": {"x": canary},
            "member_ids": [alice.name],
        },
    )
    room = made.ok()["id"]
    assert alice.device is not None
    message = await alice.device.say(
        room, canary, attachments=[{"x": canary}], metadata={"x": canary}
    )
    key = (await scene.api.post("/client/keys", {"name": canary})).ok()
    issued = await scene.login(alice.name, device_id=f"phone-{canary}")
    gone, anna = f"gone-{name_canary}", f"anna-{name_canary}"
    for name in (gone, anna):
        (await scene.api.put(f"/users/{name}", {"display_name": canary})).ok()
    (await scene.api.delete(f"/users/{gone}")).ok()
    issuer = own_issuer()
    (await scene.api.patch("/client", {"jwt_issuers": [issuer.registration()]})).ok()
    hold = {"room_id": room, "reason": canary}
    more = {"type": "group", "title": canary, "external_id": f"more-{name_canary}"}
    (await scene.api.post("/rooms", more)).ok()
    source = (
        await scene.api.post(
            "/webhooks/sources",
            {"slug": "shop-of-hers", "description": canary, **BASIC_SOURCE},
        )
    ).ok()
    address = {"channel": "email", "address": f"a@{canary}.example"}
    suppressed = (await scene.api.post("/suppressions", address)).ok()
    batch = (
        await scene.api.post(
            "/notifications/batches",
            {
                "notification": {"channels": {"email": {"subject": canary, "text": canary}}},
                "lines": f'{{"email": "a@{canary}.example"}}',
            },
        )
    ).ok()
    sent = (
        await scene.api.post(
            "/notifications",
            {
                "recipients": [{"email": f"a@{canary}.example"}],
                "channels": {"email": {"subject": canary, "text": canary}},
                "metadata": {"x": canary},
            },
        )
    ).ok()
    event = await Vendor(scene.api, scene.client["slug"], "shop-of-hers").basic({"x": canary})
    hook = {"url": f"https://8.8.8.8/{canary}", "events": ["*"], "description": canary}
    endpoint = (await scene.api.post("/webhooks/endpoints", hook)).ok()
    tested = (await scene.api.post(f"/webhooks/endpoints/{endpoint['id']}/test", {})).ok()
    body = {
        "name": canary,
        "instructions": canary,
        "access": {"mode": "listed", "user_ids": [alice.name]},
    }
    bot = (await scene.api.post("/bots", body)).ok()
    session = (
        await scene.api.post(
            "/sessions", {"user_id": alice.name, "title": canary, "bot_id": bot["id"]}
        )
    ).ok()
    place = f"/sessions/{session['id']}"
    asked = (await scene.api.post(f"{place}/messages", {"content": canary})).ok()
    (await scene.api.post(f"{place}/cancel")).ok()
    text = {"bot_id": bot["id"], "title": canary, "text": canary}
    (document,) = (await scene.api.post("/documents", text)).ok()["items"]
    (job,) = (await scene.api.get("/training/queue", source_id=document["id"])).ok()["items"]
    searched = await scene.api.get(f"/bots/{bot['id']}/search", q=canary, receipt="true")
    (await scene.api.put(f"/rooms/{room}/bots/{bot['id']}", {})).ok()
    return {
        **await _order_of(scene, canary, room, message["id"], alice.name),
        Ref.ENDPOINT: endpoint["id"],
        Ref.WEBHOOK_EVENT: tested["event_id"],
        Ref.DELIVERY: tested["delivery_id"],
        Ref.NOTIFICATION: await put_in_inbox(admin_url, scene.client["id"], alice.name, canary),
        Ref.SUPPRESSION: suppressed["id"],
        Ref.SENT: sent["id"],
        Ref.BATCH: batch["id"],
        Ref.NEW_SLUG: "shop-of-hers",
        Ref.SOURCE: source["id"],
        Ref.SOURCE_SECRET: source["secrets"][0]["id"],
        Ref.INBOUND_EVENT: event.ok()["id"],
        Ref.BOT: bot["id"],
        Ref.SEATED_BOT: bot["id"],
        Ref.DOCUMENT: document["id"],
        Ref.TRAINING_JOB: job["id"],
        Ref.RETRIEVAL: searched.ok()["retrieval_id"],
        Ref.SESSION: session["id"],
        Ref.ASKED_SESSION: session["id"],
        Ref.ANSWER: asked["message_id"],
        Ref.ROOM: room,
        Ref.ROOM_NAME: f"room-{name_canary}",
        Ref.NEW_ROOM_NAME: f"more-{name_canary}",
        Ref.MESSAGE: message["id"],
        Ref.USER: alice.name,
        Ref.PERSON: alice.name,
        Ref.MEMBER: alice.name,
        Ref.NEW_USER: anna,
        Ref.KEY: issued["key_id"],
        Ref.MASTER_KEY: key["id"],
        Ref.CLIENT: scene.client["id"],
        Ref.CURSOR: (await alice.device.call(CHAT, "sync", {}))["cursor"],
        Ref.TOKEN: issued["key"],
        Ref.ERASED: gone,
        Ref.ISSUER: issuer.name,
        Ref.HOLD: (await scene.api.post("/client/legal-holds", hold)).ok()["id"],
        Ref.FILE: await upload(alice.api, canary, canary.encode()),
        Ref.BANNED: alice.name,
    }


async def _order_of(
    scene: Scene, canary: str, room: str, message: str, person: str
) -> dict[Ref, str]:
    """Invite people, queue, set rules, flag: what keeps a client's rooms in order."""
    api = scene.api
    invite = (await api.post(f"/rooms/{room}/invites", {})).ok()
    support = {"type": "support", "title": canary, "member_ids": [person]}
    rule = {"kind": "word", "values": [f"{canary}-word"], "action": "flag"}
    provider = {"channel": "webhook", "kind": "standard", "name": canary, "config": {}}
    (await api.post(f"/messages/{message}/flag", {"reason": canary})).ok()
    return {
        Ref.INVITE: invite["id"],
        Ref.CODE: invite["code"],
        Ref.SUPPORT_ROOM: (await api.post("/rooms", support)).ok()["id"],
        Ref.RULE: (await api.post("/moderation/rules", rule)).ok()["id"],
        Ref.FLAG: (await api.get("/moderation/flags")).ok()["items"][0]["id"],
        Ref.PROVIDER: (await api.post("/providers", provider)).ok()["id"],
    }


@pytest.fixture
async def walk(pair: Cluster, nodes: list[Node], scene: Scene) -> AsyncIterator[Walk]:
    canary, name_canary = f"cnry{secrets.token_hex(8)}", f"name{secrets.token_hex(8)}"
    profile = {
        "display_name": canary,
        "avatar_url": f"https://x.example/{canary}",
        "metadata": {"x": canary},
    }
    alice = await _party(scene, f"alice-{name_canary}", 0, profile=profile)
    foreign = await _things_of(alice, scene, canary, name_canary, pair.database.admin_url)
    ally = await _party(scene, "ally", 1)
    async with on_stage(nodes, pair.database.secrets.operator_key) as elsewhere:
        bert = await _party(elsewhere, "bert", 1)
        boss = Party("bert", elsewhere.api, elsewhere.api, None)
        others = [
            device for device in (ally.device, bert.device) if isinstance(device, PythonDevice)
        ]
        yield Walk(
            canary,
            name_canary,
            alice,
            foreign,
            [ally, bert, boss],
            others,
            nodes,
            scene.client["id"],
            pair.database.admin_url,
        )


def test_every_operation_has_a_probe() -> None:
    assert set(REGISTRY.operations) - set(PROBES) == set(), "add them to tests/support/tenants.py"


def _routes(operation: Operation) -> list[Route]:
    return [route for route in REGISTRY.routes if route.operation == operation.name]


def _doors(operation: Operation, looker: Party) -> list[Route | str]:
    doors: list[Route | str] = list(_routes(operation))
    if looker.device is not None:
        doors += [each for each in operation.namespaces if each in {ROOMS, CHAT}]
    return doors


class Asked:
    """One answer: whether it is a success, the whole of it, and what a refusal says."""

    def __init__(self, said: Any, status: int, sent: list[str]) -> None:
        self.status = status
        assert status < 500, said
        # 200 and 201 are one: a repeat finds what the first look made, in the looker's own client.
        self.result = "done" if status < 300 else (status, said.get("code"))
        self.text = without(said, sent)
        is_refused = status >= 400
        self.refusal = refusal_of(said, sent) if is_refused else None


async def _ask(door: Route | str, name: str, looker: Party, payload: Payload) -> Asked:
    sent = _texts(payload)
    if isinstance(door, Route):
        answer = await ask(looker.api, door, payload)
        return Asked(answer.body, answer.status, sent)
    assert looker.device is not None
    ack = await looker.device.emit(door, name, payload)
    return Asked(
        ack if ack["ok"] else ack["error"], 200 if ack["ok"] else ack["error"]["status"], sent
    )


def _texts(payload: Any) -> list[str]:
    if isinstance(payload, dict):
        return [text for pair in payload.items() for each in pair for text in _texts(each)]
    if isinstance(payload, list):
        return [text for each in payload for text in _texts(each)]
    # Short texts are words of the contract, not names of things.
    return [payload] if isinstance(payload, str) and len(payload) > 8 else []


@pytest.mark.parametrize("nouns", GROUPS)
async def test_what_is_foreign_is_as_unknown_as_what_never_was(walk: Walk, nouns: str) -> None:
    before = await walk.her_rows()
    assert set(before) >= {"room", "message", "client_key"}
    for name, payload in EVERYTHING:
        if REGISTRY.operations[name].noun in nouns.split("-"):
            await _probe_all(walk, name, payload)
    assert await walk.her_rows() == before
    for device in walk.others:
        assert walk.canary not in without(device.events, []), device.name
    for node in walk.nodes:
        walk.see(node.log_file.read_text(errors="replace"), "log")


async def _probe_all(walk: Walk, name: str, payload: Payload) -> None:
    operation = REGISTRY.operations[name]
    for looker in walk.lookers:
        caller = Caller.MASTER if looker.is_master else Caller.USER
        for door in _doors(operation, looker):
            where = (name, looker.name, caller.value, str(door))
            if caller in operation.callers:
                await _probe(walk, looker, door, name, payload, where)
                continue
            asked = await _ask(door, name, looker, filled(payload, walk.foreign))
            assert asked.status == 403, (where, asked.text)
            walk.see(asked.text, where)


async def _probe(
    walk: Walk, looker: Party, door: Route | str, name: str, payload: Payload, where: Any
) -> None:
    for ref in set(refs_in(payload)):
        if looker.name == "ally" and ref in PEOPLE:
            # Whom one may invite, mention or look for in a room is anybody of the same client.
            continue
        if looker.name == "ally" and ref is Ref.CODE:
            # Whoever of the client holds a code comes in by it: that is what it is for.
            continue
        mine = await looker.own(payload)
        random = never_was(ref)
        unknown = await _ask(door, name, looker, filled(payload, mine | {ref: random}))
        foreign = await _ask(door, name, looker, filled(payload, mine | {ref: walk.foreign[ref]}))
        walk.see(foreign.text, (where, ref))
        if not (looker.name == "ally" and ref is Ref.NEW_ROOM_NAME):
            # A name that is taken can't be given twice in one client; elsewhere it is free.
            assert foreign.result == unknown.result, (where, ref, foreign.text, unknown.text)
        if ref is not Ref.TOKEN:
            # Whoever holds somebody's key learns nothing by hearing that it is somebody's.
            assert foreign.refusal == unknown.refusal or ref is Ref.NEW_ROOM_NAME, (where, ref)
        wrong = await _ask(door, name, looker, filled(payload, mine | {ref: MALFORMED}))
        assert wrong.status in {401, 404, 422}, (where, ref, wrong.text)
        walk.see(wrong.text, (where, ref))
    own = await _ask(door, name, looker, filled(payload, await looker.own(payload)))
    assert own.status < 400, (where, own.text)
    walk.see(own.text, where)


def heard_by(party: Party) -> int:
    """Count what somebody was told, but for how far his own rooms are, which comes at any time."""
    assert party.device is not None
    told = [*party.device.events[CHAT], *party.device.events[ROOMS]]
    return sum(name != "sync.tips" for name, _ in told)


async def test_no_name_of_a_caller_s_choice_is_an_address(walk: Walk, scene: Scene) -> None:
    """B2: rooms, people and devices called like somebody's socket, room or id reach nobody."""
    alice, ally = walk.alice, walk.lookers[0]
    assert alice.device is not None
    assert ally.device is not None
    told = heard_by(alice)
    server_ids = [row["id"] for row in await people(walk.admin_url, alice.name)]
    sessions = [
        ready["data"]["session_id"]
        for namespace in (ROOMS, CHAT)
        for ready in alice.device.of_type("session.ready", namespace)
    ]
    engine = [alice.device.client.eio.sid] if isinstance(alice.device, PythonDevice) else []
    for name in (*sessions, *engine, *server_ids, walk.foreign[Ref.ROOM], CHAT.strip("/")):
        # As a name of a room, of a person and of a device they are names like any other.
        body = {"type": "group", "external_id": name, "title": name, "member_ids": [ally.name]}
        room = (await scene.api.post("/rooms", body)).ok()["id"]
        (await scene.api.put(f"/users/{name}", {"display_name": name})).ok()
        (await scene.api.post(f"/users/{name}/login", {"device_id": name})).ok()
        await ally.device.say(room, "who hears this?")
        # As an id they are none, or nobody's business.
        for event, payload in (
            ("room.watch", {"room_id": name}),
            ("message.send", {"room_id": name, "content": "x", "client_msg_id": name[:64]}),
        ):
            refused = await ally.device.refused(CHAT, event, payload)
            assert refused["code"] in {"payload.invalid", "room.not_found"}, (event, name)
    await ally.device.call(CHAT, "sync", {})
    assert heard_by(alice) == told, alice.device.events


async def people(admin_url: str, external_id: str) -> list[Any]:
    connection = await asyncpg.connect(admin_url)
    try:
        rows: list[Any] = await connection.fetch(
            "select id::text from app_user where external_id = $1", external_id
        )
        return rows
    finally:
        await connection.close()


TEMPLATES = ("{{7*7}}", "${7*7}", "<%= 7*7 %>", "{0.__class__}", "%(name)s %s %n", "${jndi:x}")


async def test_a_template_stays_the_text_that_it_is(scene: Scene) -> None:
    """D9, by every way that a text takes: profile, title, metadata, message, key, refusal."""
    api = scene.api
    room = (await api.post("/rooms", {"type": "group"})).ok()
    for text in TEMPLATES:
        who = (await api.put("/users/ann", {"display_name": text, "metadata": {"x": text}})).ok()
        assert (who["display_name"], who["metadata"]) == (text, {"x": text})
        titled = (await api.patch(f"/rooms/{room['id']}", {"title": text})).ok()
        assert titled["title"] == text
        sent = await api.post(f"/rooms/{room['id']}/messages", {"content": text})
        assert sent.ok()["message"]["content"] == text
        assert (await api.post("/client/keys", {"name": text})).ok()["name"] == text
        refused = await api.post("/rooms", {"type": text})
        assert refused.status == 422
        assert "49" not in str(refused.body["errors"])
    found = (await api.get(f"/rooms/{room['id']}/messages")).ok()["items"]
    assert [it["content"] for it in found] == list(TEMPLATES)


async def test_a_kept_answer_is_given_to_nobody_else(walk: Walk) -> None:
    headers = {"Idempotency-Key": "same-for-all"}
    body = {"type": "group", "title": walk.canary}
    first = await walk.alice.api.send("POST", "/rooms", body, headers=headers)
    again = await walk.alice.api.send("POST", "/rooms", body, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.body == first.body
    for looker in walk.lookers:
        theirs = await looker.api.send("POST", "/rooms", body, headers=headers)
        assert theirs.status == 201
        assert "Idempotency-Replayed" not in theirs.headers
        assert theirs.ok()["id"] != first.ok()["id"]


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_a_second_namespace_takes_no_key_of_somebody_else(
    walk: Walk, scene: Scene, namespace: str
) -> None:
    first = CHAT if namespace != CHAT else ROOMS
    key = walk.others[1].key
    assert key is not None
    socket = await RawSocket(scene.http, walk.nodes[0].url).connect(key, first)
    await socket.send(f'40{namespace},{{"token":"{walk.foreign[Ref.TOKEN]}"}}')
    refused = await socket.until(lambda text: text.startswith(f"44{namespace},"))
    assert "auth.invalid" in refused
    walk.see(refused, namespace)
    await socket.close()


async def test_a_key_of_one_client_opens_nothing_for_another_after_it_was_remembered(
    walk: Walk, scene: Scene
) -> None:
    hers = await walk.alice.api.get("/me")
    assert hers.ok()["external_id"] == walk.alice.name
    for looker in walk.lookers[:2]:
        assert walk.canary not in without((await looker.api.get("/me")).ok(), [])
    with pytest.raises(RefusedError):
        await PythonDevice("nobody", scene.nodes[0].url, f"csu_{walk.canary}").connect(CHAT)
