"""Probes for the walls between tenants and people: a request that names things, for everything.

`PROBES` holds one payload per operation of the registry; whatever is a `Ref` in it is filled with
an own thing, somebody else's, one that never was, and one that can't be. Who adds an operation
adds its probe here: the walk fails until it is there.
"""

import base64
import secrets
from collections.abc import Awaitable, Callable, Iterator
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import orjson

from chatserver.transport.registry import Route
from tests.support.clients import CHAT, Answer, Api, Device
from tests.support.uploads import upload

Payload = dict[str, Any]


class Ref(StrEnum):
    """What a payload names.

    `PERSON` is anybody of the client, `MEMBER` somebody of the room, `USER` must be oneself.
    """

    ROOM = "room"
    ROOM_NAME = "room name"
    NEW_ROOM_NAME = "new room name"
    MESSAGE = "message"
    USER = "user"
    PERSON = "person"
    MEMBER = "member"
    NEW_USER = "new user"
    KEY = "key"
    MASTER_KEY = "master key"
    CLIENT = "client"
    CURSOR = "cursor"
    TOKEN = "token"
    ERASED = "erased"
    FILE = "file"
    BANNED = "banned"
    INVITE = "invite"
    CODE = "code"
    SUPPORT_ROOM = "support room"
    RULE = "rule"
    FLAG = "flag"


R = Ref
# External ids are each client's own: the same name elsewhere is another person, or another room.
PER_CLIENT: Final = frozenset({R.NEW_USER, R.NEW_ROOM_NAME})
PEOPLE: Final = frozenset({R.PERSON, R.MEMBER, R.BANNED})
MEMBER: Final = {"room_id": R.ROOM, "user_id": R.PERSON}
PROBES: Final[dict[str, Payload]] = {
    "audit.list": {},
    "auth.confirm": {"key_id": R.KEY},
    "auth.refresh": {"token": R.TOKEN},
    "client.create": {"name": "x"},
    "client.disable": {"id": R.CLIENT},
    "client.get": {"id": R.CLIENT},
    "client.list": {},
    "client.own": {},
    "client.usage": {},
    "client.update": {"id": R.CLIENT, "name": "x"},
    "client.update_own": {"name": "x"},
    "client_key.create": {"name": "x"},
    "client_key.delete": {"id": R.MASTER_KEY},
    "client_key.list": {},
    "client_key.rotate": {"id": R.MASTER_KEY},
    "erasure.get": {"external_id": R.ERASED},
    "flag.list": {},
    "flag.resolve": {"flag_id": R.FLAG, "action": "dismiss"},
    "invite.accept": {"code": R.CODE},
    "invite.create": {"room_id": R.ROOM},
    "invite.list": {"room_id": R.ROOM},
    "invite.preview": {"code": R.CODE},
    "invite.revoke": {"room_id": R.ROOM, "invite_id": R.INVITE},
    "message.flag": {"message_id": R.MESSAGE},
    "moderation.rule_create": {"kind": "word", "values": ["walked"], "action": "flag"},
    "moderation.rule_delete": {"rule_id": R.RULE},
    "moderation.rule_list": {},
    "moderation.rule_update": {"rule_id": R.RULE, "enabled": False},
    "moderation.try": {"content": "x"},
    "support.assign": {"room_id": R.SUPPORT_ROOM, "user_id": R.PERSON},
    "support.close": {"room_id": R.SUPPORT_ROOM},
    "support.queue": {},
    "support.reopen": {"room_id": R.SUPPORT_ROOM},
    "event.list": {"room_id": R.ROOM},
    "file.complete": {"file_id": R.FILE},
    "file.create": {"name": "x", "size": 1, "sha256": base64.b64encode(bytes(32)).decode()},
    "file.delete": {"file_id": R.FILE},
    "file.get": {"file_id": R.FILE},
    "member.add": {"room_id": R.ROOM, "user_ids": [R.PERSON]},
    "member.list": {"room_id": R.ROOM},
    "member.put": MEMBER,
    "member.update": {"room_id": R.ROOM, "user_id": R.MEMBER, "role": "member"},
    "ban.list": {"room_id": R.ROOM},
    "message.delete": {"message_id": R.MESSAGE},
    "message.edit": {"message_id": R.MESSAGE, "content": "edited"},
    "message.edits": {"message_id": R.MESSAGE},
    "message.get": {"message_id": R.MESSAGE},
    "message.history": {"room_id": R.ROOM},
    "message.pin": {"message_id": R.MESSAGE},
    "message.post": {"room_id": R.ROOM, "content": "x"},
    "message.react": {"message_id": R.MESSAGE, "emoji": "👍"},
    "message.search": {"q": "own", "room_id": R.ROOM},
    "message.send": {"room_id": R.ROOM, "content": "x", "client_msg_id": "walk"},
    "message.trace": {"message_id": R.MESSAGE},
    "message.thread": {"message_id": R.MESSAGE},
    "message.unpin": {"message_id": R.MESSAGE},
    "message.unreact": {"message_id": R.MESSAGE, "emoji": "👍"},
    "presence.set": {"status": "online"},
    "presence.watch": {"room_ids": [R.ROOM], "user_ids": [R.PERSON]},
    "reaction.list": {"message_id": R.MESSAGE},
    "read.mark": {"room_id": R.ROOM},
    "read.summary": {},
    "read.unmark": {"room_id": R.ROOM},
    "room.ban": {"room_id": R.ROOM, "user_id": R.PERSON},
    "room.create": {"type": "group", "external_id": R.NEW_ROOM_NAME, "member_ids": [R.PERSON]},
    "room.deactivate": {"room_id": R.ROOM},
    "room.delete": {"room_id": R.ROOM},
    "room.get": {"room_id": R.ROOM},
    "room.get_external": {"external_id": R.ROOM_NAME},
    "room.invite": MEMBER,
    "room.join": {"room_id": R.ROOM},
    "room.leave": {"room_id": R.ROOM},
    "room.list": {},
    "room.list_all": {},
    "room.mute": {"room_id": R.ROOM, "user_id": R.MEMBER},
    "room.reactivate": {"room_id": R.ROOM},
    "room.remove": {"room_id": R.ROOM, "user_id": R.MEMBER},
    "room.replay": {"room_id": R.ROOM, "after_seq": 0},
    "room.snapshot": {"room_id": R.ROOM},
    "room.unban": {"room_id": R.ROOM, "user_id": R.BANNED},
    "room.unmute": {"room_id": R.ROOM, "user_id": R.MEMBER},
    "room.unwatch": {"room_id": R.ROOM},
    "room.update": {"room_id": R.ROOM, "title": "x"},
    "room.watch": {"room_id": R.ROOM},
    "sync": {"cursor": R.CURSOR, "rooms": {R.ROOM: {"epoch": "1.1", "seq": 0}}},
    "typing.start": {"room_id": R.ROOM},
    "typing.stop": {"room_id": R.ROOM},
    "user.erase": {"external_id": R.USER},
    "user.export": {"external_id": R.USER},
    "user.get": {"external_id": R.USER},
    "user.list": {},
    "user.login": {"external_id": R.NEW_USER},
    "user.me": {},
    "user.put": {"external_id": R.NEW_USER, "display_name": "x"},
    "user.revoke": {"external_id": R.USER},
    "user.update": {"external_id": R.USER, "display_name": "x"},
    "user_key.delete": {"external_id": R.USER, "id": R.KEY},
    "user_key.list": {"external_id": R.USER},
}
# A reply to a message elsewhere: a second way into the same operation.
MORE_PROBES: Final[tuple[tuple[str, Payload], ...]] = (
    ("message.send", {**PROBES["message.send"], "reply_to": R.MESSAGE}),
    ("message.post", {**PROBES["message.post"], "reply_to": R.MESSAGE}),
    ("message.post", {**PROBES["message.post"], "mentions": [R.PERSON]}),
    ("message.post", {**PROBES["message.post"], "attachments": [{"file_id": R.FILE}]}),
    ("message.send", {**PROBES["message.send"], "attachments": [{"file_id": R.FILE}]}),
    ("message.edit", {**PROBES["message.edit"], "mentions": [R.PERSON]}),
)


def refs_in(payload: Any) -> Iterator[Ref]:
    """Give what a payload names, each place once."""
    if isinstance(payload, Ref):
        yield payload
    elif isinstance(payload, dict):
        for name, value in payload.items():
            yield from refs_in(name)
            yield from refs_in(value)
    elif isinstance(payload, list):
        for each in payload:
            yield from refs_in(each)


def filled(payload: Any, values: dict[Ref, str]) -> Any:
    """Put values in the places of what a payload names."""
    if isinstance(payload, Ref):
        return values[payload]
    if isinstance(payload, dict):
        return {filled(name, values): filled(value, values) for name, value in payload.items()}
    if isinstance(payload, list):
        return [filled(each, values) for each in payload]
    return payload


def never_was(ref: Ref) -> str:
    """Name a thing that might be there and is not."""
    if ref in PEOPLE | {R.USER, R.NEW_USER, R.ERASED, R.ROOM_NAME, R.NEW_ROOM_NAME}:
        return f"nobody-{secrets.token_hex(4)}"
    if ref is R.CODE:
        return secrets.token_urlsafe(24)
    if ref in {R.CURSOR, R.TOKEN}:
        return secrets.token_urlsafe(60)
    return str(uuid4())


class Party:
    """Somebody with things of his own, made fresh when they are asked for: probes may end them."""

    def __init__(self, name: str, api: Api, master: Api, device: Device | None) -> None:
        self.name = name
        self.api = api
        self.master = master
        self.device = device
        self.person = f"{name}-friend"
        self._makers: dict[Ref, Callable[[], Awaitable[str]]] = {
            R.ROOM: self._room,
            R.ROOM_NAME: self._room_name,
            R.NEW_ROOM_NAME: self._new_user,
            R.MESSAGE: self._message,
            R.MEMBER: self._user,
            R.USER: self._user,
            R.PERSON: self._person,
            R.NEW_USER: self._new_user,
            R.KEY: self._key,
            R.MASTER_KEY: self._master_key,
            R.CLIENT: self._client,
            R.CURSOR: self._cursor,
            R.TOKEN: self._token,
            R.ERASED: self._erased,
            R.FILE: self._file,
            R.BANNED: self._banned,
            R.INVITE: self._invite,
            R.CODE: self._code,
            R.SUPPORT_ROOM: self._support_room,
            R.RULE: self._rule,
            R.FLAG: self._flag,
        }
        self._last_room = ""
        self._last_user = name

    @property
    def is_master(self) -> bool:
        return self.device is None

    async def own(self, payload: Payload) -> dict[Ref, str]:
        """Make a thing of each kind that the payload names; messages are in its room."""
        # Rooms first: messages and seats are in them; then people, whose keys they are.
        wanted = sorted(set(refs_in(payload)), key=[R.ROOM, R.USER, *R].index)
        made = {ref: await self._makers[ref]() for ref in wanted}
        if payload == PROBES["auth.confirm"] and self.device is not None:
            # Only what the connection itself came by, or was given, can be confirmed.
            made[R.KEY] = self.device.of_type("session.ready", CHAT)[0]["data"]["auth"]["key_id"]
        return made

    async def _room(self) -> str:
        body = {"type": "group", "member_ids": [self.name]}
        made = await self.master.post("/rooms", body)
        self._last_room = made.ok()["id"]
        # Its owner, so that every probe of the own room may be a success.
        role = {"role": "owner"}
        (await self.master.patch(f"/rooms/{self._last_room}/members/{self.name}", role)).ok()
        return self._last_room

    async def _invite(self) -> str:
        made = await self.master.post(f"/rooms/{self._last_room}/invites", {})
        found: str = made.ok()["id"]
        return found

    async def _code(self) -> str:
        room = await self._room()
        made: str = (await self.master.post(f"/rooms/{room}/invites", {})).ok()["code"]
        return made

    async def _support_room(self) -> str:
        body = {"type": "support", "member_ids": [self.name]}
        made: str = (await self.master.post("/rooms", body)).ok()["id"]
        role = {"role": "owner"}
        (await self.master.patch(f"/rooms/{made}/members/{self.name}", role)).ok()
        return made

    async def _rule(self) -> str:
        body = {"kind": "word", "values": ["never said"], "action": "flag"}
        made: str = (await self.master.post("/moderation/rules", body)).ok()["id"]
        return made

    async def _flag(self) -> str:
        message = await self._message()
        (await self.master.post(f"/messages/{message}/flag", {})).ok()
        query = {"room_id": self._last_room}
        listed = (await self.master.get("/moderation/flags", **query)).ok()["items"]
        made: str = listed[-1]["id"]
        return made

    async def _room_name(self) -> str:
        name = f"own-{secrets.token_hex(4)}"
        body = {"type": "group", "external_id": name, "member_ids": [self.name]}
        (await self.master.post("/rooms", body)).ok()
        return name

    async def _message(self) -> str:
        room = self._last_room or await self._room()
        sent = await self.master.post(
            f"/rooms/{room}/messages", {"content": "own", "sender_id": self.name}
        )
        found: str = sent.ok()["message"]["id"]
        return found

    async def _user(self) -> str:
        if not self.is_master:
            return self.name
        # What the application does to a person may end that person: not the one who looks.
        self._last_user = f"user-{secrets.token_hex(4)}"
        (await self.master.put(f"/users/{self._last_user}")).ok()
        if self._last_room:
            body = {"user_ids": [self._last_user]}
            (await self.master.post(f"/rooms/{self._last_room}/members", body)).ok()
        return self._last_user

    async def _person(self) -> str:
        (await self.master.put(f"/users/{self.person}")).ok()
        return self.person

    async def _banned(self) -> str:
        name = await self._person()
        (await self.master.put(f"/rooms/{self._last_room}/bans/{name}")).ok()
        return name

    async def _new_user(self) -> str:
        return f"new-{secrets.token_hex(4)}"

    async def _key(self) -> str:
        whose = self._last_user if self.is_master else self.name
        issued = await self.master.post(f"/users/{whose}/login", {})
        made: str = issued.ok()["key_id"]
        return made

    async def _master_key(self) -> str:
        made: str = (await self.master.post("/client/keys", {"name": "own"})).ok()["id"]
        return made

    async def _client(self) -> str:
        found: str = (await self.master.get("/client")).ok()["id"]
        return found

    async def _cursor(self) -> str:
        assert self.device is not None
        made: str = (await self.device.call(CHAT, "sync", {}))["cursor"]
        return made

    async def _token(self) -> str:
        assert self.device is not None
        return self.device.key or ""

    async def _file(self) -> str:
        return await upload(self.api, "own")

    async def _erased(self) -> str:
        name = f"gone-{secrets.token_hex(4)}"
        (await self.master.put(f"/users/{name}")).ok()
        (await self.master.delete(f"/users/{name}")).ok()
        return name


async def ask(api: Api, route: Route, payload: Payload) -> Answer:
    """Send a payload to a route: members of its path there, the others as the method takes them."""
    rest = dict(payload)
    path = route.path
    for name in payload:
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", quote(str(rest.pop(name)), safe=""))
    if route.method in {"GET", "DELETE"}:
        return await api.send(route.method, path, query={k: str(v) for k, v in rest.items()})
    return await api.send(route.method, path, rest)


def refusal_of(answer: Any, names: list[str]) -> Any:
    """Give what a refusal says, without what differs by nature: the trace, the names sent."""
    kept = {
        name: answer.get(name)
        for name in ("code", "status", "message", "title", "detail", "details", "errors")
        if name in answer
    }
    return without(kept, names)


def without(said: Any, names: list[str]) -> str:
    """Write an answer as text, with the names that the asker sent himself taken out."""
    text = said if isinstance(said, str) else orjson.dumps(said).decode()
    for name in names:
        text = text.replace(name, "<sent>")
    return text
