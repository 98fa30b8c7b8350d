"""What strangers send: each is refused with its field named, stores nothing, and breaks nothing."""

import json
from typing import Any, Final

import orjson
import pytest

from tests.support.clients import CHAT, ROOMS, Api, RawSocket
from tests.support.scene import Scene

# The members of `message.send` beside `room_id`, as JSON text, and the field that is wrong.
MEMBERS: Final = {
    "NUL in the text": (r'"content": "a\u0000b", "client_msg_id": "1"', "content"),
    "NUL in a name": (
        r'"content": "a", "client_msg_id": "1", "metadata": {"a\u0000": 1}',
        "metadata",
    ),
    "lone surrogate": (r'"content": "\ud800", "client_msg_id": "1"', "content"),
    "lone surrogate deep down": (
        r'"content": "a", "client_msg_id": "1", "metadata": {"a": [{"b": "\udfff"}]}',
        "metadata.a.0.b",
    ),
    "huge integer": (
        r'"content": "a", "client_msg_id": "1", "metadata": {"n": 9007199254740992}',
        "metadata.n",
    ),
    "negative huge integer": (
        r'"content": "a", "client_msg_id": "1", "metadata": {"n": -9007199254740992}',
        "metadata.n",
    ),
    "NaN": (r'"content": "a", "client_msg_id": "1", "metadata": {"n": NaN}', "metadata.n"),
    "infinity": (r'"content": "a", "client_msg_id": "1", "metadata": {"n": 1e999}', "metadata.n"),
    "deep nesting": (
        '"content": "a", "client_msg_id": "1", "metadata": {"n": ' + "[" * 40 + "]" * 40 + "}",
        "metadata.n",
    ),
    "unknown member": (r'"content": "a", "client_msg_id": "1", "nonsense": 1', "nonsense"),
    "number for a text": (r'"content": 7, "client_msg_id": "1"', "content"),
    "no text": (r'"client_msg_id": "1"', "content"),
    "empty text": (r'"content": "", "client_msg_id": "1"', "content"),
    "number for an id": (r'"content": "a", "client_msg_id": 1', "client_msg_id"),
    "empty id": (r'"content": "a", "client_msg_id": ""', "client_msg_id"),
    "65 characters for an id": (
        f'"content": "a", "client_msg_id": "{"x" * 65}"',
        "client_msg_id",
    ),
    "an object for a list": (
        r'"content": "a", "client_msg_id": "1", "attachments": {}',
        "attachments",
    ),
    "31 attachments": (
        f'"content": "a", "client_msg_id": "1", "attachments": {json.dumps([{"a": 1}] * 31)}',
        "attachments",
    ),
    "101 mentions": (
        f'"content": "a", "client_msg_id": "1", "mentions": {json.dumps(["bob"] * 101)}',
        "mentions",
    ),
    "a mention that is no name": (
        r'"content": "a", "client_msg_id": "1", "mentions": ["bob", "no name!"]',
        "mentions.1",
    ),
    "a reply to nonsense": (
        r'"content": "a", "client_msg_id": "1", "reply_to": "nonsense"',
        "reply_to",
    ),
    "a list for an object": (
        r'"content": "a", "client_msg_id": "1", "metadata": []',
        "metadata",
    ),
    "duplicate member": (r'"content": "a", "content": "b", "client_msg_id": "1"', "content"),
}
TOO_LONG: Final = {
    "20,001 characters": '"' + "x" * 20_001 + '"',
    "60,001 bytes": json.dumps("😀" * 15_001, ensure_ascii=False),
}


@pytest.fixture
async def room(scene: Scene) -> dict[str, Any]:
    await scene.people("alice", "bob")
    made = await scene.api.post("/rooms", {"type": "group", "member_ids": ["alice", "bob"]})
    found: dict[str, Any] = made.ok()
    return found


async def last_seq(scene: Scene, room: dict[str, Any]) -> int:
    found: int = (await scene.api.get(f"/rooms/{room['id']}/events")).ok()["last_seq"]
    return found


class TestRest:
    @pytest.fixture
    async def alice(self, scene: Scene) -> Api:
        return await scene.as_user("alice")

    @pytest.mark.parametrize("name", MEMBERS)
    async def test_a_bad_member_is_named(
        self, scene: Scene, room: dict[str, Any], alice: Api, name: str
    ) -> None:
        members, field = MEMBERS[name]
        path = f"/rooms/{room['id']}/messages"
        answer = await alice.send("POST", path, raw=b"{%b}" % members.encode())
        if name == "no text":
            assert "client_msg_id" not in str(answer.body["errors"])
        assert (answer.status, answer.body["code"]) == (422, "payload.invalid"), answer
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert _is_named(field, answer.body["errors"]), answer.body
        assert await last_seq(scene, room) == 1
        assert (await alice.post(path, {"content": "still here"})).status == 201

    @pytest.mark.parametrize("name", TOO_LONG)
    async def test_a_text_that_is_too_long_is_refused(
        self, scene: Scene, room: dict[str, Any], alice: Api, name: str
    ) -> None:
        body = b'{"content": %b, "client_msg_id": "1"}' % TOO_LONG[name].encode()
        answer = await alice.send("POST", f"/rooms/{room['id']}/messages", raw=body)
        assert (answer.status, answer.body["code"]) == (422, "message.too_long")
        assert await last_seq(scene, room) == 1

    @pytest.mark.parametrize(
        ("raw", "status", "code"),
        [
            (b"{", 422, "payload.invalid"),
            (b"[]", 422, "payload.invalid"),
            (b"null", 422, "payload.invalid"),
            (b'"text"', 422, "payload.invalid"),
            (b"\xff\xfe{\x00}\x00", 422, "payload.invalid"),
            (b'{"content": "\xe9"}', 422, "payload.invalid"),
            (b'{"content": "a"} {}', 422, "payload.invalid"),
            (b'{"n": ' + b"9" * 5000 + b"}", 422, "payload.invalid"),
            (b"[" * 100_000, 422, "payload.invalid"),
            (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, 422, "payload.invalid"),
            (b'{"content": "' + b"x" * 131_072 + b'"}', 413, "payload.too_large"),
        ],
        ids=lambda value: repr(value)[:24],
    )
    async def test_what_is_no_object_is_refused_whole(
        self, scene: Scene, room: dict[str, Any], alice: Api, raw: bytes, status: int, code: str
    ) -> None:
        answer = await alice.send("POST", f"/rooms/{room['id']}/messages", raw=raw)
        assert (answer.status, answer.body["code"]) == (status, code)
        assert await last_seq(scene, room) == 1
        assert (await alice.get("/me")).status == 200

    async def test_another_media_type_is_refused(self, room: dict[str, Any], alice: Api) -> None:
        for headers in (
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "application/json; charset=latin-1"},
            {"Content-Encoding": "gzip"},
        ):
            answer = await alice.send(
                "POST", f"/rooms/{room['id']}/messages", raw=b'{"content": "a"}', headers=headers
            )
            assert answer.status == 415, (headers, answer)

    async def test_bad_queries_are_named(self, room: dict[str, Any], alice: Api) -> None:
        path = f"/rooms/{room['id']}/messages"
        for query, field in (
            ({"limit": "0"}, "limit"),
            ({"limit": "101"}, "limit"),
            ({"limit": "many"}, "limit"),
            ({"after_seq": "-1"}, "after_seq"),
            ({"after_seq": "9" * 400}, "after_seq"),
            ({"nonsense": "1"}, "nonsense"),
            ({"before_seq": "NaN"}, "before_seq"),
        ):
            answer = await alice.send("GET", path, query=query)
            assert (answer.status, answer.body["code"]) == (422, "payload.invalid"), query
            assert _is_named(field, answer.body["errors"]), answer.body

    async def test_a_bad_credential_is_a_401_whatever_it_is(self, scene: Scene) -> None:
        for key in ("nonsense", "x" * 4000, "ck_live_1.2.3", "é"):
            answer = await scene.api.as_(None).send(
                "GET", "/me", headers={"X-API-Key": key.encode().decode("latin-1")}
            )
            assert (answer.status, answer.body["code"]) == (401, "auth.invalid"), key
        assert (await scene.api.as_(None).get("/me")).body["code"] == "auth.missing"


class TestSockets:
    @pytest.fixture
    async def raw(self, scene: Scene, room: dict[str, Any]) -> RawSocket:
        made = RawSocket(scene.http, scene.nodes[0].url)
        return await made.connect(await scene.key_of("alice"), ROOMS, CHAT)

    async def _is_alive(self, raw: RawSocket, room: dict[str, Any]) -> bool:
        ack = await raw.call_raw(ROOMS, f'["room.get",{{"room_id":"{room["id"]}"}}]')
        return bool(ack["ok"]) and ack["data"]["last_seq"] == 1

    @pytest.mark.parametrize("name", MEMBERS)
    async def test_a_bad_member_is_named_and_the_connection_kept(
        self, scene: Scene, room: dict[str, Any], raw: RawSocket, name: str
    ) -> None:
        members, field = MEMBERS[name]
        ack = await raw.call_raw(CHAT, f'["message.send",{{"room_id":"{room["id"]}",{members}}}]')
        assert ack["ok"] is False
        assert (ack["error"]["code"], ack["error"]["status"]) == ("payload.invalid", 422)
        assert _is_named(field, ack["error"]["details"]), ack
        assert await self._is_alive(raw, room)
        await raw.close()

    @pytest.mark.parametrize("name", TOO_LONG)
    async def test_a_text_that_is_too_long_is_refused(
        self, room: dict[str, Any], raw: RawSocket, name: str
    ) -> None:
        members = f'"room_id":"{room["id"]}","content":{TOO_LONG[name]},"client_msg_id":"1"'
        ack = await raw.call_raw(CHAT, f'["message.send",{{{members}}}]')
        assert ack["error"]["code"] == "message.too_long"
        assert await self._is_alive(raw, room)
        await raw.close()

    @pytest.mark.parametrize(
        ("namespace", "body", "code"),
        [
            (CHAT, '["message.send"]', "payload.invalid"),
            (CHAT, '["message.send",null]', "payload.invalid"),
            (CHAT, '["message.send","text"]', "payload.invalid"),
            (CHAT, '["message.send",[]]', "payload.invalid"),
            (CHAT, '["message.send",{},{}]', "payload.invalid"),
            (CHAT, '["nonsense",{}]', "event.unknown"),
            (CHAT, '["",{}]', "event.unknown"),
            (CHAT, '["message.created",{}]', "event.unknown"),
            (CHAT, '["__class__",{}]', "event.unknown"),
            (CHAT, f'["{"x" * 5000}",{{}}]', "event.unknown"),
            (CHAT, r'["\u0000",{}]', "event.unknown"),
            (CHAT, r'["\ud800",{}]', "event.unknown"),
            (ROOMS, '["message.send",{}]', "event.unknown"),
            (CHAT, '["room.create",{"type":"group"}]', "event.unknown"),
            (CHAT, f'["message.send",{{"content":"{"x" * 131_072}"}}]', "payload.too_large"),
        ],
        ids=lambda value: str(value)[:24],
    )
    async def test_a_wrong_command_is_answered(
        self, room: dict[str, Any], raw: RawSocket, namespace: str, body: str, code: str
    ) -> None:
        ack = await raw.call_raw(namespace, body)
        assert ack["error"]["code"] == code
        assert ack["error"]["message"]
        assert await self._is_alive(raw, room)
        await raw.close()

    async def test_binary_is_refused_in_its_acknowledgement(
        self, room: dict[str, Any], raw: RawSocket
    ) -> None:
        placeholder = '{"_placeholder":true,"num":0}'
        await raw.send(f'451-/chat,77["message.send",{{"content":{placeholder}}}]')
        await raw.send_bytes(b"\x00\x01\x02")
        said = await raw.until(lambda text: text.startswith("43/chat,77["))
        (ack,) = orjson.loads(said[len("43/chat,77") :])
        assert ack["error"]["code"] == "payload.invalid"
        assert await self._is_alive(raw, room)
        await raw.close()

    @pytest.mark.parametrize(
        "frame",
        [
            "42/chat,nonsense",
            "42/chat,1{}",
            "42/chat,1[]",
            "42/chat,1[7,{}]",
            '42/chat,1["connect",{}]',
            '42/chat,1["disconnect",{}]',
            '42/chat,1["connect_error",{}]',
            '42/notifications,1["notification.list",{}]',
            "42/chat,1" + "[" * 50_000,
            '40/chat,{"token":"again"}',
            '44/chat,{"message":"I am the server"}',
            '459-/chat,1["message.send",{"_placeholder":true,"num":0}]',
            '451-/chat,1["message.send",{"_placeholder":true,"num":7}]',
            "49",
            "4",
            "9",
            "2probe",
        ],
        ids=lambda frame: frame[:24],
    )
    async def test_abuse_of_the_protocol_is_closed_with_a_reason(
        self, scene: Scene, room: dict[str, Any], raw: RawSocket, frame: str
    ) -> None:
        bob = await scene.device("bob")
        await raw.send(frame)
        closing = await raw.until(lambda text: "session.closing" in text)
        data = orjson.loads(closing[closing.index("[") :])[1]["data"]
        assert data["code"] == "payload.invalid"
        assert data["reason"]
        while await raw.next_text():
            pass
        assert raw.closed
        # Nobody else is concerned, and whoever did it may come back.
        message = await bob.say(room["id"], "still here")
        assert message["seq"] == 2
        again = RawSocket(scene.http, scene.nodes[0].url)
        await (await again.connect(await scene.key_of("alice"), CHAT)).close()

    async def test_a_frame_beyond_256_kib_closes_with_1009(
        self, room: dict[str, Any], raw: RawSocket, scene: Scene
    ) -> None:
        await raw.send('42/chat,1["message.send",{"content":"' + "x" * 262_144 + '"}]')
        while await raw.next_text():
            pass
        assert raw.closed
        assert raw.close_code == 1009
        assert await last_seq(scene, room) == 1

    async def test_an_announced_attachment_that_never_comes_harms_only_itself(
        self, room: dict[str, Any], raw: RawSocket
    ) -> None:
        await raw.send('451-/chat,1["message.send",{"a":{"_placeholder":true,"num":0}}]')
        await raw.send('42/chat,2["message.history",{}]')
        await raw.until(lambda text: "session.closing" in text)

    async def test_a_body_beyond_256_kib_over_polling_is_a_413(
        self, scene: Scene, room: dict[str, Any]
    ) -> None:
        url = f"{scene.nodes[0].url}/socket.io/?EIO=4&transport=polling"
        async with scene.http.get(url) as answer:
            sid = orjson.loads((await answer.read())[1:])["sid"]
        async with scene.http.post(f"{url}&sid={sid}", data=b"4" * 262_145) as answer:
            assert answer.status == 413
        assert (await (await scene.as_user("alice")).get("/me")).status == 200

    async def test_a_flood_of_bad_commands_is_answered_to_the_last(
        self, room: dict[str, Any], raw: RawSocket
    ) -> None:
        for at in range(300):
            await raw.send(f'42/chat,{1000 + at}["message.send",{{"room_id":{at}}}]')
        acks: set[str] = set()
        while len(acks) < 300:
            text = await raw.until(lambda said: said.startswith("43/chat,1"))
            acks.add(text.partition("[")[0])
            assert '"payload.invalid"' in text
        assert await self._is_alive(raw, room)
        await raw.close()


def _is_named(field: str, issues: list[dict[str, str]]) -> bool:
    return any(
        issue["field"] == field or issue["field"].startswith(f"{field}.") for issue in issues
    )
