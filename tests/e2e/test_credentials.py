"""Credentials in every place and shape that they don't belong in: told in words, never a bug."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.support.clients import CHAT, ROOMS, RawSocket
from tests.support.scene import Scene

LONG = "x" * 7_000
GOOD, OTHER = "GOOD", "OTHER"

HEADERS: list[tuple[list[tuple[str, str]], int]] = [
    ([("Authorization", "Bearer GOOD")], 200),
    ([("authorization", "bearer GOOD")], 200),
    ([("Authorization", "Bearer   GOOD  ")], 200),
    ([("X-API-Key", "GOOD")], 200),
    ([("X-API-Key", "GOOD"), ("Authorization", "Bearer GOOD")], 200),
    ([("Authorization", "Bearer GOOD"), ("Authorization", "Bearer GOOD")], 200),
    # Two proxies must not disagree about who calls.
    ([("X-API-Key", "GOOD"), ("Authorization", "Bearer OTHER")], 400),
    ([("Authorization", "Bearer GOOD"), ("Authorization", "Bearer OTHER")], 400),
    ([("X-API-Key", "GOOD"), ("X-API-Key", "OTHER")], 400),
    ([("Authorization", "Bearer GOOD, Bearer OTHER")], 401),
    ([("Authorization", "Bearer GOOD OTHER")], 401),
    ([("Authorization", "Basic GOOD")], 401),
    ([("Authorization", "GOOD")], 401),
    ([("Authorization", "Bearer")], 401),
    ([("Authorization", "BearerGOOD")], 401),
    ([("Cookie", "token=GOOD; Authorization=Bearer GOOD")], 401),
    ([("Proxy-Authorization", "Bearer GOOD")], 401),
    ([("X-Api_Key", "GOOD")], 401),
    ([("X-Original-Authorization", "Bearer GOOD")], 401),
    ([("X-HTTP-Method-Override", "DELETE"), ("Authorization", "Bearer GOOD")], 200),
    ([("Authorization", f"Bearer {LONG}")], 401),
    ([("Authorization", f"Bearer GOOD{LONG}")], 401),
    ([("Authorization", "Bearer GOOD\u00e9")], 401),
    ([("X-Client", "elsewhere"), ("Authorization", "Bearer GOOD")], 200),
    ([("X-Client", LONG), ("Authorization", "Bearer GOOD")], 200),
]
CONNECTS: list[tuple[Any, str]] = [
    (None, "auth.missing"),
    ([], "auth.missing"),
    ("GOOD", "auth.missing"),
    (7, "auth.missing"),
    ({}, "auth.missing"),
    ({"token": None}, "auth.missing"),
    ({"token": ""}, "auth.missing"),
    ({"token": []}, "auth.invalid"),
    ({"token": ["GOOD"]}, "auth.invalid"),
    ({"token": {"token": "GOOD"}}, "auth.invalid"),
    ({"token": 1e9}, "auth.invalid"),
    ({"token": 0}, "auth.invalid"),
    ({"token": False}, "auth.invalid"),
    ({"token": "GOOD "}, "auth.invalid"),
    ({"token": "Bearer GOOD"}, "auth.invalid"),
    ({"token": "x" * 200_000}, "auth.invalid"),
    ({"token": "a." * 60_000 + "b"}, "auth.invalid"),
    ({"token": f"{'a' * 60_000}.{'b' * 60_000}.{'c' * 60_000}"}, "auth.invalid"),
    ({"token": "GOOD\0"}, "payload.invalid"),
    ({"token": "GOOD", "client": ["acme"]}, "payload.invalid"),
    ({"token": "GOOD", "client": "c" * 65}, "payload.invalid"),
    ({"token": "GOOD", "device_id": {"a": 1}}, "payload.invalid"),
    ({"authorization": "Bearer GOOD"}, "auth.missing"),
    ({"Token": "GOOD"}, "auth.missing"),
    ({"__proto__": {"token": "GOOD"}}, "auth.missing"),
]


class TestHeaders:
    async def test_one_credential_in_one_of_two_places_is_taken_and_nothing_else(
        self, scene: Scene
    ) -> None:
        keys = {GOOD: scene.master_key, OTHER: (await scene.login("alice"))["key"]}
        url = f"{scene.nodes[0].url}/api/v1/rooms/all"
        for told, expected in HEADERS:
            headers = told
            for name, key in keys.items():
                headers = [(field, value.replace(name, key)) for field, value in headers]
            async with scene.http.get(url, headers=headers) as answer:
                body = await answer.json()
                assert answer.status == expected, (told, body)
            assert not any(key in str(body) for key in keys.values())

    @pytest.mark.parametrize("value", [b"Bearer \x00", b"Bearer a\rb", b"Bearer " + b"x" * 70_000])
    async def test_what_is_no_header_is_refused_by_the_parser(
        self, scene: Scene, value: bytes
    ) -> None:
        host, _, port = scene.nodes[0].url.removeprefix("http://").partition(":")
        request = b"GET /api/v1/rooms HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n" % value
        answer = await raw(host, int(port), request)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400")), answer[:80]
        assert b"Traceback" not in answer


async def raw(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(4096), 10)
    finally:
        writer.close()


class TestConnects:
    async def test_whatever_is_no_credential_is_refused_in_words(self, scene: Scene) -> None:
        key = (await scene.login("alice", rotation="explicit"))["key"]
        for auth, code in CONNECTS:
            text = "" if auth is None else orjson.dumps(auth).decode().replace(GOOD, key)
            socket = await RawSocket(scene.http, scene.nodes[0].url).connect("")
            await socket.send(f"40{CHAT},{text}")
            refused = await socket.until(lambda said: said.startswith((f"44{CHAT}", f"40{CHAT}")))
            assert refused.startswith(f"44{CHAT},"), (str(auth)[:80], refused)
            error = orjson.loads(refused[refused.index("{") :])["data"]
            assert error["code"] == code, (str(auth)[:80], error)
            assert key not in refused
            await socket.close()

    async def test_headers_and_addresses_of_sockets_are_no_place_for_a_key(
        self, scene: Scene
    ) -> None:
        key = (await scene.login("alice", rotation="explicit"))["key"]
        url = scene.nodes[0].url.replace("http", "ws", 1)
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
            async with scene.http.ws_connect(
                f"{url}/socket.io/?EIO=4&transport=websocket", headers=headers
            ) as socket:
                await socket.receive_str()
                await socket.send_str(f"40{ROOMS},")
                assert '"auth.missing"' in await socket.receive_str()
            async with scene.http.ws_connect(f"{url}/api/v1/websocket", headers=headers) as plain:
                await plain.send_str('{"id": "1", "event": "connect", "data": {}}')
                said = await plain.receive_json()
                assert said["error"]["code"] == "auth.missing"
