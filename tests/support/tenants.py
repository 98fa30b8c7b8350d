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
from tests.support.issuer import own_issuer
from tests.support.uploads import upload
from tests.support.vendors import BASIC_SOURCE, Vendor

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
    ISSUER = "issuer"
    HOLD = "hold"
    FILE = "file"
    BANNED = "banned"
    INVITE = "invite"
    CODE = "code"
    SUPPORT_ROOM = "support room"
    RULE = "rule"
    FLAG = "flag"
    PROVIDER = "provider"
    ENDPOINT = "webhook endpoint"
    WEBHOOK_EVENT = "webhook event"
    DELIVERY = "delivery"
    SOURCE = "inbound source"
    NEW_SLUG = "new slug"
    SOURCE_SECRET = "source secret"
    INBOUND_EVENT = "inbound event"
    NOTIFICATION = "inbox item"
    SENT = "notification"
    BATCH = "notification batch"
    SUPPRESSION = "suppression"
    BOT = "bot"
    DOCUMENT = "document"
    TRAINING_JOB = "training job"
    RETRIEVAL = "retrieval"
    SEATED_BOT = "bot of the room"
    SESSION = "session"
    # One with an answer in it, and the answer: both were cancelled.
    ASKED_SESSION = "asked session"
    ANSWER = "answer"


R = Ref
MAIL: Final = {"subject": "x", "text": "x"}
# External ids are each client's own: the same name elsewhere is another person, or another room.
PEOPLE: Final = frozenset({R.PERSON, R.MEMBER, R.BANNED})
PER_CLIENT: Final = frozenset({R.NEW_USER, R.NEW_ROOM_NAME, R.NEW_SLUG})
MEMBER: Final = {"room_id": R.ROOM, "user_id": R.PERSON}
PROVIDER: Final = {"channel": "webhook", "kind": "standard", "name": "x", "config": {}}
# An address that is public without being asked for; nothing is sent where no worker runs.
ENDPOINT: Final = {"url": "https://8.8.8.8/hook", "events": ["room.deleted"]}
PROBES: Final[dict[str, Payload]] = {
    "assistant.ask": {"room_id": R.ROOM, "content": "x", "client_msg_id": "ask", "bot_id": R.BOT},
    "assistant.cancel": {"message_id": R.ANSWER},
    "assistant.catch_up": {"message_id": R.ANSWER},
    "assistant.follow": {"message_id": R.ANSWER},
    "assistant.resume": {"message_id": R.ANSWER},
    "assistant.usage": {},
    "audit.list": {},
    "auth.confirm": {"key_id": R.KEY},
    "auth.refresh": {"token": R.TOKEN},
    "bot.create": {"name": "x", "access": {"mode": "listed", "user_ids": [R.PERSON]}},
    "bot.delete": {"bot_id": R.BOT},
    "bot.get": {"bot_id": R.BOT},
    "bot.list": {},
    "bot.search": {"bot_id": R.BOT, "q": "x"},
    "bot.update": {"bot_id": R.BOT, "name": "x"},
    "client.create": {"name": "x"},
    "client.disable": {"id": R.CLIENT},
    "client.get": {"id": R.CLIENT},
    "client.list": {},
    "client.own": {},
    "client.update": {"id": R.CLIENT, "name": "x"},
    "client.update_own": {"name": "x"},
    "client.usage": {},
    "client_key.create": {"name": "x"},
    "client_key.delete": {"id": R.MASTER_KEY},
    "client_key.list": {},
    "client_key.rotate": {"id": R.MASTER_KEY},
    "analytics.get": {},
    "delivery.cancel_many": {"channel": "sms"},
    "delivery.explain": {"id": R.DELIVERY},
    "delivery.export": {"channel": "sms"},
    "delivery.list": {"channel": "sms"},
    "delivery.replay_many": {"channel": "sms"},
    "delivery.get": {"id": R.DELIVERY},
    "delivery.replay": {"id": R.DELIVERY},
    "endpoint.create": ENDPOINT,
    "endpoint.delete": {"id": R.ENDPOINT},
    "endpoint.deliveries": {"id": R.ENDPOINT},
    "endpoint.events": {"id": R.ENDPOINT},
    "endpoint.get": {"id": R.ENDPOINT},
    "endpoint.list": {},
    "endpoint.replay": {"id": R.ENDPOINT, "missing": True},
    "endpoint.rotate_secret": {"id": R.ENDPOINT},
    "endpoint.test": {"id": R.ENDPOINT},
    "endpoint.update": {"id": R.ENDPOINT, "description": "x"},
    "device.delete": {"kind": "fcm", "token": "token-of-a-phone"},
    "device.list": {},
    "device.put": {"kind": "fcm", "token": "token-of-a-phone"},
    "document.chunks": {"document_id": R.DOCUMENT},
    "document.create": {"bot_id": R.BOT, "text": "x"},
    "document.delete": {"document_id": R.DOCUMENT},
    "document.get": {"document_id": R.DOCUMENT},
    "document.list": {"bot_id": R.BOT},
    "document.process": {"document_id": R.DOCUMENT},
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
    "legal_hold.list": {},
    "legal_hold.place": {"room_id": R.ROOM, "reason": "x"},
    "legal_hold.release": {"id": R.HOLD},
    "file.complete": {"file_id": R.FILE},
    "file.create": {"name": "x", "size": 1, "sha256": base64.b64encode(bytes(32)).decode()},
    "file.delete": {"file_id": R.FILE},
    "file.get": {"file_id": R.FILE},
    "ledger.get": {},
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
    "provider.create": PROVIDER,
    "provider.delete": {"id": R.PROVIDER},
    "provider.get": {"id": R.PROVIDER},
    "provider.list": {},
    "provider.update": {"id": R.PROVIDER, "name": "y"},
    "provider.verify": {"id": R.PROVIDER},
    "notification.cancel": {"id": R.SENT},
    "notification.deliveries": {"id": R.SENT},
    "notification.get": {"id": R.SENT},
    "notification.list_sent": {},
    "notification.batch_cancel": {"id": R.BATCH},
    "notification.batch_create": {
        "notification": {"channels": {"email": MAIL}},
        "lines": '{"email": "a@example.net"}',
    },
    "notification.batch_get": {"id": R.BATCH},
    "notification.batch_list": {},
    "notification.send": {
        "recipients": [{"user_id": R.PERSON}],
        "channels": {"socket": {"title": "x"}},
    },
    "notification.ack": {"ids": [R.NOTIFICATION]},
    "notification.list": {"cursor": R.NOTIFICATION},
    "notification.read": {"ids": [R.NOTIFICATION]},
    "notification.read_all": {"up_to": R.NOTIFICATION},
    "preference.get": {},
    "preference.put": {"preferences": {"news": {"email": False}}},
    "preference.update": {"preferences": {"news": {"push": False}}},
    "presence.set": {"status": "online"},
    "presence.watch": {"room_ids": [R.ROOM], "user_ids": [R.PERSON]},
    "token.list_revoked": {},
    "token.revoke": {"jti": "t1", "issuer": R.ISSUER},
    "reaction.list": {"message_id": R.MESSAGE},
    "read.mark": {"room_id": R.ROOM},
    "read.summary": {},
    "read.unmark": {"room_id": R.ROOM},
    "room.ban": {"room_id": R.ROOM, "user_id": R.PERSON},
    "retrieval.get": {"bot_id": R.BOT, "retrieval_id": R.RETRIEVAL},
    "retrieval.replay": {"bot_id": R.BOT, "retrieval_id": R.RETRIEVAL},
    "room.add_bot": {"room_id": R.ROOM, "bot_id": R.BOT},
    "room.bots": {"room_id": R.ROOM},
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
    "room.remove_bot": {"room_id": R.ROOM, "bot_id": R.SEATED_BOT},
    "room.replay": {"room_id": R.ROOM, "after_seq": 0},
    "room.snapshot": {"room_id": R.ROOM},
    "room.unban": {"room_id": R.ROOM, "user_id": R.BANNED},
    "room.unmute": {"room_id": R.ROOM, "user_id": R.MEMBER},
    "room.unwatch": {"room_id": R.ROOM},
    "room.update": {"room_id": R.ROOM, "title": "x"},
    "room.watch": {"room_id": R.ROOM},
    "source.add_secret": {"id": R.SOURCE, "secret": "shop:a third one"},
    "source.create": {"slug": R.NEW_SLUG, "scheme": "github"},
    "source.delete": {"id": R.SOURCE},
    "source.end_secret": {"id": R.SOURCE, "secret_id": R.SOURCE_SECRET},
    "source.event": {"id": R.SOURCE, "event_id": R.INBOUND_EVENT},
    "source.events": {"id": R.SOURCE},
    "source.get": {"id": R.SOURCE},
    "source.list": {},
    "source.refusals": {"id": R.SOURCE},
    "source.replay": {"id": R.SOURCE},
    "source.replay_event": {"id": R.SOURCE, "event_id": R.INBOUND_EVENT},
    "source.test": {"id": R.SOURCE, "headers": {}, "body": "x"},
    "source.update": {"id": R.SOURCE, "description": "x"},
    "suppression.create": {"channel": "email", "address": "x@example.com"},
    "suppression.delete": {"id": R.SUPPRESSION},
    "suppression.get": {"id": R.SUPPRESSION},
    "suppression.list": {},
    "sync": {"cursor": R.CURSOR, "rooms": {R.ROOM: {"epoch": "1.1", "seq": 0}}},
    "typing.start": {"room_id": R.ROOM},
    "typing.stop": {"room_id": R.ROOM},
    "session.cancel": {"session_id": R.ASKED_SESSION},
    "session.create": {"user_id": R.USER, "bot_id": R.BOT},
    "session.delete": {"session_id": R.SESSION},
    "session.export": {"session_id": R.SESSION},
    "session.favorite": {"session_id": R.SESSION},
    "session.get": {"session_id": R.SESSION},
    "session.import": {"user_id": R.USER, "bot_id": R.BOT},
    "session.list": {"user_id": R.USER},
    "session.message": {"session_id": R.SESSION, "content": "x", "generate": False},
    "session.messages": {"session_id": R.SESSION},
    "session.resume": {"session_id": R.ASKED_SESSION},
    "session.search": {"user_id": R.USER, "q": "x"},
    "session.update": {"session_id": R.SESSION, "title": "x"},
    "training.delete": {"source_id": R.DOCUMENT},
    "training.get": {"job_id": R.TRAINING_JOB},
    "training.list": {"source_id": R.DOCUMENT},
    "training.reembed": {"bot_id": R.BOT},
    "training.queue": {"source_ids": [R.DOCUMENT]},
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
    ("legal_hold.place", {"user_id": R.USER, "reason": "x"}),
    ("message.send", {**PROBES["message.send"], "reply_to": R.MESSAGE}),
    ("message.post", {**PROBES["message.post"], "reply_to": R.MESSAGE}),
    ("message.post", {**PROBES["message.post"], "mentions": [R.PERSON]}),
    ("message.post", {**PROBES["message.post"], "attachments": [{"file_id": R.FILE}]}),
    ("message.send", {**PROBES["message.send"], "attachments": [{"file_id": R.FILE}]}),
    ("message.edit", {**PROBES["message.edit"], "mentions": [R.PERSON]}),
    ("endpoint.replay", {"id": R.ENDPOINT, "event_id": R.WEBHOOK_EVENT}),
    ("source.test", {"id": R.SOURCE, "event_id": R.INBOUND_EVENT}),
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
    named = {R.USER, R.NEW_USER, R.ERASED, R.ROOM_NAME, R.NEW_ROOM_NAME, R.NEW_SLUG}
    if ref in PEOPLE | named:
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
            R.ISSUER: self._issuer,
            R.HOLD: self._hold,
            R.FILE: self._file,
            R.BANNED: self._banned,
            R.INVITE: self._invite,
            R.CODE: self._code,
            R.SUPPORT_ROOM: self._support_room,
            R.RULE: self._rule,
            R.FLAG: self._flag,
            R.PROVIDER: self._provider,
            R.ENDPOINT: self._endpoint,
            R.WEBHOOK_EVENT: self._webhook_event,
            R.DELIVERY: self._delivery,
            R.SOURCE: self._source,
            R.NEW_SLUG: self._new_user,
            R.SOURCE_SECRET: self._source_secret,
            R.INBOUND_EVENT: self._inbound_event,
            R.NOTIFICATION: self._notification,
            R.SUPPRESSION: self._suppression,
            R.BOT: self._bot,
            R.DOCUMENT: self._document,
            R.TRAINING_JOB: self._training_job,
            R.RETRIEVAL: self._retrieval,
            R.SEATED_BOT: self._seated_bot,
            R.SESSION: self._session,
            R.ASKED_SESSION: self._asked_session,
            R.ANSWER: self._answer,
            R.SENT: self._sent,
            R.BATCH: self._batch,
        }
        self._last_room = ""
        self._last_endpoint = ""
        self._last_source: dict[str, Any] = {}
        self._last_user = name
        self._last_bot = ""

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
        flags = await self.master.get("/moderation/flags", room_id=self._last_room)
        listed = flags.ok()["items"]
        made: str = listed[-1]["id"]
        return made

    async def _provider(self) -> str:
        made: str = (await self.master.post("/providers", PROVIDER)).ok()["id"]
        return made

    async def _endpoint(self) -> str:
        self._last_endpoint = (await self.master.post("/webhooks/endpoints", ENDPOINT)).ok()["id"]
        return self._last_endpoint

    async def _webhook_event(self) -> str:
        tested = await self.master.post(f"/webhooks/endpoints/{self._last_endpoint}/test", {})
        made: str = tested.ok()["event_id"]
        return made

    async def _delivery(self) -> str:
        tested = await self.master.post(f"/webhooks/endpoints/{await self._endpoint()}/test", {})
        made: str = tested.ok()["delivery_id"]
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

    async def _issuer(self) -> str:
        made = own_issuer()
        (await self.master.patch("/client", {"jwt_issuers": [made.registration()]})).ok()
        return made.name

    async def _hold(self) -> str:
        body = {"room_id": await self._room(), "reason": "own"}
        made: str = (await self.master.post("/client/legal-holds", body)).ok()["id"]
        return made

    async def _source(self) -> str:
        body = {"slug": f"own-{secrets.token_hex(4)}", **BASIC_SOURCE}
        self._last_source = (await self.master.post("/webhooks/sources", body)).ok()
        made: str = self._last_source["id"]
        return made

    async def _source_secret(self) -> str:
        found: str = self._last_source["secrets"][0]["id"]
        return found

    async def _inbound_event(self) -> str:
        client = (await self.master.get("/client")).ok()
        vendor = Vendor(self.master, client["slug"], self._last_source["slug"])
        found: str = (await vendor.basic({"own": True})).ok()["id"]
        return found

    async def _file(self) -> str:
        return await upload(self.api, "own")

    async def _notification(self) -> str:
        # Only a delivery puts one there: one that is gone does, where nothing tells them apart.
        return str(uuid4())

    async def _sent(self) -> str:
        body = {"recipients": [{"email": "a@x.example"}], "channels": {"email": MAIL}}
        made: str = (await self.master.post("/notifications", body)).ok()["id"]
        return made

    async def _batch(self) -> str:
        body = PROBES["notification.batch_create"]
        made: str = (await self.master.post("/notifications/batches", body)).ok()["id"]
        return made

    async def _suppression(self) -> str:
        body = {"channel": "email", "address": f"{secrets.token_hex(4)}@example.com"}
        made: str = (await self.master.post("/suppressions", body)).ok()["id"]
        return made

    async def _erased(self) -> str:
        name = f"gone-{secrets.token_hex(4)}"
        (await self.master.put(f"/users/{name}")).ok()
        (await self.master.delete(f"/users/{name}")).ok()
        return name

    async def _bot(self) -> str:
        # Its documents are the person's to change, so that every probe may be a success.
        body = {"name": "own", "access": {"editors": [] if self.is_master else [self.name]}}
        made: str = (await self.master.post("/bots", body)).ok()["id"]
        self._last_bot = made
        return made

    async def _document(self) -> str:
        text = {"bot_id": self._last_bot or await self._bot(), "text": secrets.token_hex(8)}
        made: str = (await self.master.post("/documents", text)).ok()["items"][0]["id"]
        return made

    async def _training_job(self) -> str:
        body = {"source_ids": [await self._document()]}
        made: str = (await self.master.post("/training/queue", body)).ok()["items"][0]["id"]
        return made

    async def _retrieval(self) -> str:
        bot = self._last_bot or await self._bot()
        found = (await self.master.get(f"/bots/{bot}/search", q="x", receipt="true")).ok()
        made: str = found["retrieval_id"]
        return made

    async def _seated_bot(self) -> str:
        bot = await self._bot()
        (await self.master.put(f"/rooms/{self._last_room}/bots/{bot}", {})).ok()
        return bot

    async def _session(self) -> str:
        body = {"user_id": self.name, "bot_id": await self._bot()}
        made: str = (await self.master.post("/sessions", body)).ok()["id"]
        return made

    async def _asked_session(self) -> str:
        session = await self._session()
        await self._asked_in(session)
        return session

    async def _answer(self) -> str:
        return await self._asked_in(await self._session())

    async def _asked_in(self, session: str) -> str:
        said = await self.master.post(f"/sessions/{session}/messages", {"content": "own"})
        (await self.master.post(f"/sessions/{session}/cancel")).ok()
        found: str = said.ok()["message_id"]
        return found


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
