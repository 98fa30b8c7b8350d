"""Notifications as an application and its people meet them: asked for once, told where one is."""

import asyncio
import csv
import io
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from chatserver.bootstrap import Container
from tests.support.clients import CHAT, ROOMS, Answer
from tests.support.nodes import Cluster, eventually
from tests.support.scene import Scene
from tests.support.talk import settings_of
from workers.absences import AbsenceLane
from workers.batches import BatchJobs

INBOX = "/notifications"
SAID = {"channels": {"socket": {"title": "Hello"}}, "category": "news", "priority": "bulk"}


@pytest.fixture
async def worker(pair: Cluster) -> AsyncIterator[Container]:
    """What a worker has, in this loop: it speaks to the nodes by the bus alone."""
    made = Container(settings_of(pair.database), name="test worker")
    await made.start()
    yield made
    await made.stop()


async def look(pair: Cluster, worker: Container, room_id: str) -> None:
    """Let the time of a room's notices come, and look."""
    connection = await asyncpg.connect(pair.database.admin_url)
    try:
        await connection.execute(
            "update message_notice set due_at = clock_timestamp() where room_id = $1",
            UUID(room_id),
        )
    finally:
        await connection.close()
    absences = worker.absences
    await AbsenceLane(
        notices=absences.lookup,
        open_absences=absences.open_absences,
        present=absences.present,
    ).look()


async def test_who_is_away_is_told_and_reading_the_room_settles_it(
    pair: Cluster, scene: Scene, worker: Container
) -> None:
    ann, bob = (f"{name}-{secrets.token_hex(3)}" for name in ("ann", "bob"))
    await scene.people(ann, bob)
    hers = await scene.as_user(ann)
    room = (await hers.post("/rooms", {"type": "direct", "member_ids": [bob]})).ok()["id"]
    await scene.api.post(f"/rooms/{room}/messages", {"content": "one", "sender_id": ann})
    await look(pair, worker, room)

    his = await scene.as_user(bob)
    me = (await his.get("/me")).ok()
    assert me["unread"] == {
        "total_unread": 1, "muted_unread": 0, "total_mentions": 0, "unread_rooms": 1,
        "notifications": 1,
    }  # fmt: skip
    [first] = (await his.get("/me/notifications")).ok()["items"]
    assert (first["category"], first["title"], first["body"]) == ("message", ann, "one")

    phone = await scene.device(bob, 1, namespaces=(CHAT, ROOMS, INBOX))
    await phone.call(ROOMS, "presence.set", {"status": "away"})
    users = [
        row["id"]
        for row in await (await worker.database.fast()).fetch(
            "select id from app_user where external_id = $1", bob
        )
    ]
    # Connected, but not there.
    await eventually(lambda: _is_away(worker, users), why="presence has heard it")
    await scene.api.post(f"/rooms/{room}/messages", {"content": "two", "sender_id": ann})
    await look(pair, worker, room)
    await eventually(lambda: phone.of_type("notification.created", INBOX), why="it is told live")
    [told] = phone.of_type("notification.created", INBOX)
    assert told["data"]["replaces"] == first["id"]
    assert told["data"]["notification"]["body"] == "two"
    assert told["data"]["notification"]["data"]["count"] == 2

    await phone.call(CHAT, "read.mark", {"room_id": room})
    await eventually(lambda: phone.of_type("notification.read", INBOX), why="reading settles it")
    assert (await his.get("/me")).ok()["unread"]["notifications"] == 0


async def _is_away(worker: Container, users: list[UUID]) -> bool:
    found = await worker.absences._presence.read(users)
    return [each.status for each in found.values()] == ["away"]


async def test_fifty_requests_with_one_key_are_one_notification(scene: Scene) -> None:
    body = {
        "recipients": [{"email": "ann@example.net"}],
        "channels": {"email": {"subject": "x", "text": "x"}},
        "category": f"once-{secrets.token_hex(4)}",
    }
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    answers: list[Answer] = await asyncio.gather(
        *(
            scene.api.at(scene.nodes[n % 2].url).send(
                "POST", "/notifications", body, headers=headers
            )
            for n in range(50)
        )
    )
    counted = Counter(answer.status for answer in answers)
    assert set(counted) <= {202, 409}
    made = {answer.body["id"] for answer in answers if answer.status == 202}
    assert len(made) == 1
    first = [a for a in answers if a.status == 202 and "Idempotency-Replayed" not in a.headers]
    assert len(first) == 1
    listed = (await scene.api.get("/notifications", category=body["category"])).ok()
    assert [it["id"] for it in listed["items"]] == list(made)
    other = await scene.api.send(
        "POST", "/notifications", body | {"category": "other"}, headers=headers
    )
    assert (other.status, other.body["code"]) == (422, "idempotency.conflict")


def form(fields: dict[str, str], content: bytes) -> tuple[bytes, dict[str, str]]:
    """A form with one file."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="r.ndjson"\r\n\r\n'
    raw = b"".join([*parts, head, content, b"\r\n--x--\r\n"])
    return raw, {"Content-Type": "multipart/form-data; boundary=x"}


async def test_a_file_of_recipients_goes_out_once_and_can_be_read_out(
    scene: Scene, worker: Container
) -> None:
    names = [f"p{n}-{secrets.token_hex(3)}" for n in range(3)]
    await scene.people(*names)
    lines = b"\n".join(orjson.dumps({"user_id": name}) for name in [*names, "nobody"])
    raw, headers = form({"notification": orjson.dumps(SAID).decode()}, lines)
    headers["Idempotency-Key"] = secrets.token_hex(8)

    async def upload() -> Any:
        return await scene.api.send("POST", "/notifications/batches", raw=raw, headers=headers)

    made = await upload()
    assert (made.status, made.body["recipients"]) == (202, 4)
    assert (await upload()).body["id"] == made.body["id"]
    batch_id = made.body["id"]
    client_id = UUID(scene.client["id"])
    await BatchJobs(worker.sending.open_batches).send_all(client_id, UUID(batch_id))
    done = (await scene.api.get(f"/notifications/batches/{batch_id}")).ok()
    assert (done["state"], done["done"], done["skipped"]) == ("done", 4, 1)
    assert done["states"] == {"accepted": 3}

    listed = (await scene.api.get("/deliveries", channel="socket", limit="2")).ok()
    assert len(listed["items"]) == 2
    rest = await scene.api.get("/deliveries", channel="socket", cursor=listed["next_cursor"])
    assert len(rest.ok()["items"]) == 1
    explained = (await scene.api.get(f"/deliveries/{listed['items'][0]['id']}/explain")).ok()
    assert "inbox" in explained["sentence"]
    table = await scene.api.get("/deliveries/export", format="csv")
    assert table.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert {row["user_id"] for row in csv.DictReader(io.StringIO(table.body))} == set(names)
    lines_out = (await scene.api.get("/deliveries/export", state="accepted")).body
    assert len(lines_out.splitlines()) == 3
    [figures] = (await scene.api.get("/analytics")).ok()["items"]
    assert (figures["channel"], figures["count"], figures["success_rate"]) == ("socket", 3, 1.0)
    assert (await scene.api.get("/ledger")).ok()["balanced"]
    again = (await scene.api.post("/deliveries/replay", {"state": "accepted"})).body
    assert again["count"] == 0

    wrong, headers = form({"notification": orjson.dumps(SAID).decode()}, b"{}\nnothing")
    refused = await scene.api.send("POST", "/notifications/batches", raw=wrong, headers=headers)
    assert refused.status == 422
    assert [it["field"] for it in refused.body["errors"]] == ["file.1", "file.2"]
