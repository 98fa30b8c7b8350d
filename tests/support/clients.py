"""Those who use the server from outside: over REST, and as Socket.IO clients in Python."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import socketio
from socketio.exceptions import ConnectionError as NotConnectedError

from tests.support.nodes import eventually

ROOMS, CHAT = "/rooms", "/chat"
ANSWER_S = 15.0


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    def ok(self) -> Any:
        """Give the body of an answer that must be a success."""
        assert self.status < 400, (self.status, self.body)
        return self.body


class Api:
    """REST with one key."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str | None) -> None:
        self._session = session
        self._url = url
        self._key = key

    def at(self, url: str) -> "Api":
        return Api(self._session, url, self._key)

    def as_(self, key: str | None) -> "Api":
        return Api(self._session, self._url, key)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        data = orjson.dumps(body) if body is not None else raw
        all_headers = dict(headers or {})
        if data is not None:
            all_headers.setdefault("Content-Type", "application/json")
        if self._key is not None:
            all_headers["Authorization"] = f"Bearer {self._key}"
        if path.startswith("/") and not path.startswith(
            ("/health", "/openapi", "/asyncapi", "/storage")
        ):
            path = "/api/v1" + path
        async with self._session.request(
            method, self._url + path, data=data, headers=all_headers, params=query
        ) as answer:
            text = await answer.read()
            is_json = answer.content_type.endswith(("/json", "+json")) and text
            said = orjson.loads(text) if is_json else text.decode(errors="replace")
            return Answer(answer.status, said, dict(answer.headers))

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.send("GET", path, query={name: str(it) for name, it in query.items()})

    async def post(self, path: str, body: Any = None) -> Answer:
        return await self.send("POST", path, {} if body is None else body)

    async def put(self, path: str, body: Any = None) -> Answer:
        return await self.send("PUT", path, {} if body is None else body)

    async def patch(self, path: str, body: Any = None) -> Answer:
        return await self.send("PATCH", path, {} if body is None else body)

    async def delete(self, path: str) -> Answer:
        return await self.send("DELETE", path)


class RefusedError(AssertionError):
    """A connect was refused; `error` is the contract's error object."""

    def __init__(self, message: str, error: dict[str, Any] | None) -> None:
        super().__init__(f"refused: {message} {error}")
        self.message = message
        self.error = error or {}


class Device(ABC):
    """One connection of a user, and what it has been told; the same for every kind of client."""

    def __init__(self, name: str, url: str, key: str | None) -> None:
        self.name = name
        self.url = url
        self.key = key
        self.events: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        self.disconnects: list[tuple[str, str]] = []

    @abstractmethod
    async def connect(self, *namespaces: str) -> "Device":
        """Connect, and wait for `session.ready`. Raises RefusedError when it is refused."""

    @abstractmethod
    async def emit(self, namespace: str, event: str, payload: Any) -> dict[str, Any]:
        """Send a command and give its acknowledgement as it is."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def transport(self) -> str | None: ...

    def note(self, namespace: str, event: str, args: Sequence[Any]) -> None:
        assert len(args) == 1, f"{event} came with {len(args)} arguments"
        self.events[namespace].append((event, args[0]))

    async def call(self, namespace: str, event: str, payload: Any) -> Any:
        """Send a command that must succeed and give its data."""
        ack = await self.emit(namespace, event, payload)
        assert ack["ok"] is True, (event, ack)
        return ack["data"]

    async def refused(self, namespace: str, event: str, payload: Any) -> dict[str, Any]:
        """Send a command that must be refused and give the error."""
        ack = await self.emit(namespace, event, payload)
        assert ack["ok"] is False, (event, ack)
        error: dict[str, Any] = ack["error"]
        assert {"code", "message", "status", "retryable", "trace_id"} <= set(error)
        return error

    async def create_room(self, *others: str, **more: Any) -> dict[str, Any]:
        payload = {"type": "group", "member_ids": list(others), **more}
        room: dict[str, Any] = await self.call(ROOMS, "room.create", payload)
        return room

    async def say(self, room_id: str, content: str, **more: Any) -> dict[str, Any]:
        """Send a message and give it as it was stored."""
        payload = {
            "room_id": room_id,
            "content": content,
            "client_msg_id": secrets.token_hex(8),
            **more,
        }
        sent = await self.call(CHAT, "message.send", payload)
        message: dict[str, Any] = sent["message"]
        return message

    async def wait_ready(self, namespaces: Iterable[str]) -> None:
        for namespace in namespaces:
            await eventually(
                lambda ns=namespace: self.of_type("session.ready", ns),  # type: ignore[misc]
                why=f"{self.name} is ready in {namespace}",
            )

    def of_type(self, event: str, namespace: str = CHAT) -> list[Any]:
        return [fact for name, fact in self.events[namespace] if name == event]

    def facts(self, room_id: str, namespace: str = CHAT) -> list[dict[str, Any]]:
        """Give the sequenced facts of a room in the order in which they came."""
        return [
            fact
            for _, fact in self.events[namespace]
            if fact.get("room_id") == room_id and "seq" in fact
        ]

    def seqs(self, room_id: str, namespace: str = CHAT) -> list[int]:
        return [fact["seq"] for fact in self.facts(room_id, namespace)]

    def texts(self, room_id: str) -> list[str]:
        return [
            fact["data"]["message"]["content"]
            for fact in self.facts(room_id)
            if fact["type"] == "message.created"
        ]

    async def has_seq(self, room_id: str, seq: int, within_s: float = 30) -> None:
        """Wait until the device was told the fact with this seq, or a later one."""
        await eventually(
            lambda: any(told >= seq for told in self.seqs(room_id)),
            within_s=within_s,
            why=f"{self.name} hears seq {seq}; so far {self.seqs(room_id)[-5:]}",
        )


async def all_see(
    devices: Iterable[Device], room_id: str, last: int, *, first: int = 1, within_s: float = 30
) -> None:
    """Every device gets exactly `first`…`last` in `/chat`: in order, no hole, nothing twice."""
    devices = list(devices)
    await asyncio.gather(*(device.has_seq(room_id, last, within_s) for device in devices))
    expected = list(range(first, last + 1))
    for device in devices:
        assert device.seqs(room_id) == expected, device.name
    reference = {fact["seq"]: _agreed(fact) for fact in devices[0].facts(room_id)}
    for device in devices[1:]:
        for fact in device.facts(room_id):
            assert _agreed(fact) == reference[fact["seq"]], device.name


def _agreed(fact: dict[str, Any]) -> dict[str, Any]:
    """What everyone sees alike. A room's own fact shows the room as it is when it is read.

    Contract: live and replayed facts agree in type, id and seq. One that a node read from the log,
    because the bus had lost it, may know of later activity.
    """
    if fact["type"].startswith("room."):
        return {name: value for name, value in fact.items() if name != "data"}
    return fact


class PythonDevice(Device):
    """python-socketio's own client."""

    def __init__(
        self,
        name: str,
        url: str,
        key: str | None,
        *,
        transports: Sequence[str] | None = ("websocket",),
        reconnection: bool = False,
    ) -> None:
        super().__init__(name, url, key)
        self._transports = None if transports is None else list(transports)
        self.client = socketio.AsyncClient(
            reconnection=reconnection, reconnection_delay=0.2, reconnection_delay_max=1
        )
        self._refusals: list[Any] = []

    async def connect(self, *namespaces: str, auth: Any = None) -> "PythonDevice":
        namespaces = namespaces or (ROOMS, CHAT)
        for namespace in namespaces:
            self._listen(namespace)
        try:
            await self.client.connect(
                self.url,
                auth={"token": self.key} if auth is None else auth,
                namespaces=list(namespaces),
                transports=self._transports,
                wait_timeout=ANSWER_S,
            )
        except NotConnectedError as error:
            refusal = self._refusals[0] if self._refusals else {}
            raise RefusedError(str(error), refusal.get("data")) from error
        await self.wait_ready(namespaces)
        return self

    def _listen(self, namespace: str) -> None:
        async def note(event: str, *args: Any) -> None:
            self.note(namespace, event, args)

        async def refused(data: Any) -> None:
            self._refusals.append(data)

        async def gone(reason: str) -> None:
            self.disconnects.append((namespace, reason))

        self.client.on("*", note, namespace=namespace)
        self.client.on("connect_error", refused, namespace=namespace)
        self.client.on("disconnect", gone, namespace=namespace)

    async def emit(self, namespace: str, event: str, payload: Any) -> dict[str, Any]:
        ack: dict[str, Any] = await self.client.call(
            event, payload, namespace=namespace, timeout=ANSWER_S
        )
        return ack

    async def transport(self) -> str | None:
        return str(self.client.transport())

    async def close(self) -> None:
        await self.client.disconnect()


class RawSocket:
    """A WebSocket that speaks Engine.IO by hand, and can therefore speak it badly."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        self._ack_id = 0
        self.received: list[str] = []
        self.closed = False
        self.close_code: int | None = None

    async def connect(self, key: str, *namespaces: str) -> "RawSocket":
        self._socket = await self._session.ws_connect(self._url, max_msg_size=0)
        assert (await self.next_text()).startswith("0{")
        for namespace in namespaces:
            await self.send(f"40{namespace}," + orjson.dumps({"token": key}).decode())
            await self.until(lambda text, ns=namespace: text.startswith(f"40{ns},"))
        return self

    async def send(self, text: str) -> None:
        await self._socket.send_str(text)

    async def send_bytes(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def next_text(self) -> str:
        """Give the next text frame, "" when the server has closed. Pings are answered."""
        while True:
            message = await self._socket.receive(timeout=ANSWER_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                self.closed = True
                self.close_code = self._socket.close_code
                return ""
            text = str(message.data)
            if text == "2":
                await self.send("3")
                continue
            self.received.append(text)
            return text

    async def until(self, wanted: Any) -> str:
        while text := await self.next_text():
            if wanted(text):
                return text
        raise AssertionError(f"the socket was closed; it said {self.received}")

    async def call_raw(self, namespace: str, body: str) -> dict[str, Any]:
        """Send the text of an event's array with an ack id and give the acknowledgement."""
        self._ack_id += 1
        await self.send(f"42{namespace},{self._ack_id}{body}")
        start = f"43{namespace},{self._ack_id}["
        ack: list[dict[str, Any]] = orjson.loads(
            (await self.until(lambda text: text.startswith(start)))[len(start) - 1 :]
        )
        return ack[0]

    async def close(self) -> None:
        await self._socket.close()
