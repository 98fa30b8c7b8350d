"""A file on its way from one browser to another, and found again by the words beside it."""

from typing import Any

import aiohttp
import pytest

from tests.support.clients import CHAT, Api
from tests.support.files import picture
from tests.support.javascript import JavaScript
from tests.support.nodes import Cluster, eventually
from tests.support.scene import Scene, on_stage
from tests.support.uploads import announced, send, upload

PICTURE = picture(900, 600)


@pytest.mark.js
async def test_a_picture_is_sent_seen_and_found_with_the_stock_client(
    cluster: Any, js: JavaScript
) -> None:
    made: Cluster = cluster()
    nodes = await made.nodes("a")
    await made.workers()
    async with on_stage(nodes, made.database.secrets.operator_key) as scene:
        alice = await js.device("alice", nodes[0].url, await scene.key_of("alice")).connect()
        bob = await js.device("bob", nodes[0].url, await scene.key_of("bob")).connect()
        room = (await alice.create_room("bob"))["id"]
        api = await scene.as_user("alice")
        file_id = await upload(api, "Strand.png", PICTURE, "image/png")
        sent = await alice.call(
            CHAT,
            "message.send",
            {
                "room_id": room,
                "content": "Sunset at the beach",
                "client_msg_id": "1",
                "attachments": [{"file_id": file_id}],
            },
        )
        assert sent["message"]["attachments"] == [
            {"file_id": file_id, "name": "Strand.png", "content_type": "image/png",
             "size": len(PICTURE), "width": 900, "height": 600}
        ]  # fmt: skip
        await bob.has_seq(room, sent["message"]["seq"])
        [fact] = bob.of_type("message.created", CHAT)
        assert fact["data"]["message"]["attachments"][0]["file_id"] == file_id
        bobs = await scene.as_user("bob")

        async def thumbnail() -> bool:
            return "thumbnail" in (await bobs.get(f"/files/{file_id}")).ok()

        await eventually(thumbnail, within_s=20, why="the worker draws the thumbnail")

        async def found() -> bool:
            page = await bob.call(CHAT, "message.search", {"q": "sun* beach"})
            return [hit["message"]["id"] for hit in page["items"]] == [sent["message"]["id"]]

        await eventually(found, within_s=20, why="the worker makes it findable")
        query = {"q": '"the beach"', "room_id": room, "has_attachment": "true"}
        [hit] = (await bobs.send("GET", "/search/messages", query=query)).ok()["items"]
        assert [it["text"] for it in hit["highlights"] if it["match"]] == ["the", "beach"]


class TestLinks:
    """What the server's own links allow, over the wire."""

    @pytest.fixture
    async def api(self, scene: Scene) -> Api:
        return await scene.as_user("alice")

    async def test_a_download_is_a_download_whatever_is_in_it(self, api: Api, scene: Scene) -> None:
        html = b"<!doctype html><script>alert(1)</script>"
        file_id = await upload(
            api, 'x".html\r\nSet-Cookie: a=b'[:7], html, "application/octet-stream"
        )
        link = (await api.get(f"/files/{file_id}")).ok()["download"]
        async with scene.http.get(scene.nodes[1].url + link["url"]) as answer:
            assert answer.status == 200
            assert await answer.read() == html
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Disposition"].startswith("attachment; ")
            assert "sandbox" in answer.headers["Content-Security-Policy"]

    async def test_an_upload_is_just_what_was_announced_and_once(
        self, api: Api, scene: Scene
    ) -> None:
        body = announced(b"hello", "text/plain", "greeting")
        made = (await api.post("/files", body)).ok()
        link = made["upload"]
        for wrong in (b"hallo", b"hello!", b"hell", b""):
            assert (await send(api, link, wrong)).status == 422
        for header in ({"Content-Type": "text/html"}, {"Content-Encoding": "gzip"}):
            headers = {"Content-Type": "text/plain", **header}
            refused = await api.send("PUT", link["url"], raw=b"hello", headers=headers)
            assert refused.status == 415
        early = await api.post(f"/files/{made['file']['id']}/complete")
        assert (early.status, early.body["code"]) == (409, "file.not_ready")
        # Cut off in the middle, the same link still takes the whole.
        await _cut_off(scene, link)
        assert (await send(api, link, b"hello")).status == 200
        assert (await send(api, link, b"hello")).status == 422
        assert (await api.post(f"/files/{made['file']['id']}/complete")).ok()["state"] == "ready"

    async def test_a_changed_or_foreign_token_opens_nothing(self, api: Api, scene: Scene) -> None:
        file_id = await upload(api, "x")
        link = (await api.get(f"/files/{file_id}")).ok()["download"]
        token = link["url"].rpartition("/")[2]
        for other in (token[:-3], "x", f"{token}x", token.replace(".", ""), "..%2f..%2fetc"):
            answer = await api.send("GET", f"/storage/{other}")
            assert (answer.status, answer.body["code"]) == (404, "route.not_found")
        # A link to fetch is none to store.
        assert (await send(api, {**link, "method": "PUT"}, b"x")).status == 404
        (await api.delete(f"/files/{file_id}")).ok()
        assert (await api.get(f"/files/{file_id}")).status == 404

    async def test_a_page_elsewhere_may_use_the_links(self, api: Api, scene: Scene) -> None:
        made = (await api.post("/files", announced(b"hello", "text/plain", "x"))).ok()
        headers = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "content-type",
        }
        url = scene.nodes[0].url + made["upload"]["url"]
        async with scene.http.options(url, headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def _cut_off(scene: Scene, link: dict[str, Any]) -> None:
    async def part() -> Any:
        yield b"he"
        raise ConnectionResetError

    headers = {**link["headers"], "Content-Length": "5"}
    with pytest.raises(aiohttp.ClientError):
        async with scene.http.put(
            scene.nodes[0].url + link["url"], data=part(), headers=headers
        ) as answer:
            await answer.read()
