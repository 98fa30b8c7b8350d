"""From a file in a form to a passage that is found, through real processes and their deaths."""

from functools import partial
from typing import Any

import aiohttp
import pytest

from tests.support import documents
from tests.support.clients import CHAT
from tests.support.nodes import Cluster, eventually
from tests.support.scene import Scene, on_stage

SENTENCE = "The warranty of the copper kettle lasts seven years."


async def upload(scene: Scene, bot: str, *files: tuple[str, bytes], key: str | None = None) -> Any:
    form = aiohttp.FormData()
    form.add_field("bot_id", bot)
    for name, content in files:
        form.add_field("file", content, filename=name, content_type="application/octet-stream")
    headers = {"Authorization": f"Bearer {key or scene.master_key}"}
    url = f"{scene.nodes[0].url}/api/v1/documents"
    async with scene.http.post(url, data=form, headers=headers) as answer:
        return answer.status, await answer.json()


async def embedding(scene: Scene, document_id: str) -> bool:
    found = (await scene.api.get(f"/documents/{document_id}")).ok()
    return bool(found["status"] == "embedding")


async def ended(scene: Scene, document_id: str) -> Any:
    found = (await scene.api.get(f"/documents/{document_id}")).ok()
    return found if found["status"] in {"ready", "failed"} else None


async def test_a_form_is_read_told_of_and_found_though_its_worker_is_killed(
    own_cluster: Cluster,
) -> None:
    """kill -9 while it embeds: the next worker goes on, and nothing is there twice."""
    node = own_cluster.node("a")
    await node.start()
    async with on_stage([node], own_cluster.database.secrets.operator_key) as scene:
        editor = await scene.device("ann")
        access = {"mode": "listed", "editors": ["ann"]}
        bot = (await scene.api.post("/bots", {"name": "Helper", "access": access})).ok()["id"]
        long = "\n\n".join(
            f"Paragraph {number} is about item {number * 31}. " * 10 for number in range(160)
        )
        status, said = await upload(
            scene,
            bot,
            ("terms.pdf", documents.pdf(SENTENCE, "Second page.")),
            ("long.txt", long.encode()),
            key=await scene.key_of("ann"),
        )
        assert status == 201, said
        terms, book = (each["id"] for each in said["items"])

        await own_cluster.workers()
        worker = own_cluster.processes[-2]
        await eventually(partial(embedding, scene, book), within_s=90, why="it is embedded")
        worker.kill()
        await own_cluster.workers()

        done = await eventually(partial(ended, scene, book), within_s=120, why="it is read")
        assert (done["status"], done["indexed_version"]) == ("ready", 1)
        listed = (await scene.api.get(f"/documents/{book}/chunks", size="100")).ok()
        assert "".join(each["text"] for each in listed["items"]) == long
        assert (await eventually(partial(ended, scene, terms)))["pages"] == 2

        found = (await scene.api.get(f"/bots/{bot}/search", q="how long is the guarantee")).ok()
        assert found["items"][0]["text"].startswith(SENTENCE)
        assert (found["items"][0]["page"], found["legs"]) == (1, "hybrid")
        told = [fact["data"]["document"] for fact in editor.of_type("document.updated", CHAT)]
        assert {each["status"] for each in told} >= {"parsing", "embedding", "ready"}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x", 400),
        (b"", "multipart/form-data", 400),
        (b"{}", "application/json", 400),
        (b"", "text/plain", 400),
    ],
)
async def test_what_is_no_form_is_refused_and_named(
    scene: Scene, body: bytes, kind: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {scene.master_key}", "Content-Type": kind}
    url = f"{scene.nodes[0].url}/api/v1/documents"
    async with scene.http.post(url, data=body, headers=headers) as answer:
        said = await answer.json()
        assert answer.status < 500, said
        assert said["code"] in {"payload.invalid", "request.malformed", "media_type.unsupported"}


@pytest.mark.parametrize(
    ("parts", "head"),
    [(51, 'name="file"; filename="a.txt"'), (20, 'name="more{n}"'), (3_000, 'name="more{n}"')],
)
async def test_a_form_of_too_many_parts_is_cut_off(scene: Scene, parts: int, head: str) -> None:
    body = "".join(
        f"--x\r\nContent-Disposition: form-data; {head.format(n=n)}\r\n\r\nx\r\n"
        for n in range(parts)
    )
    headers = {
        "Authorization": f"Bearer {scene.master_key}",
        "Content-Type": "multipart/form-data; boundary=x",
    }
    url = f"{scene.nodes[0].url}/api/v1/documents"
    async with scene.http.post(url, data=f"{body}--x--\r\n".encode(), headers=headers) as answer:
        assert answer.status in {400, 413, 422}
        assert (await answer.json())["code"] in {"payload.invalid", "payload.too_large"}


async def test_a_person_who_may_not_edit_learns_nothing(scene: Scene) -> None:
    bot = (await scene.api.post("/bots", {"name": "Helper"})).ok()["id"]
    status, said = await upload(scene, bot, ("a.txt", b"x"), key=await scene.key_of("eve"))
    assert (status, said["code"]) == (404, "bot.not_found")
    eve = await scene.as_user("eve")
    assert (await eve.get("/documents")).ok()["items"] == []
    assert (await eve.get(f"/bots/{bot}")).ok().get("instructions") is None


async def test_sending_a_form_again_under_its_key_gives_the_first_answer(scene: Scene) -> None:
    bot = (await scene.api.post("/bots", {"name": "Helper"})).ok()["id"]
    url = f"{scene.nodes[0].url}/api/v1/documents"
    headers = {"Authorization": f"Bearer {scene.master_key}", "Idempotency-Key": "form-1"}
    said = []
    for content in (b"one", b"one", b"two"):
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("bot_id", bot)
        form.add_field("file", content, filename="../../etc/a\u202e.txt")
        async with scene.http.post(url, data=form, headers=headers) as answer:
            said.append((answer.status, await answer.json()))
    assert said[0] == said[1]
    assert said[0][1]["items"][0]["name"] == "a.txt"
    assert (said[2][0], said[2][1]["code"]) == (422, "idempotency.conflict")
