"""A provider that speaks the OpenAI-compatible protocol, and fails in every way, on command.

The mode stands in the question: `[[mode]]`, or in `modes`, which are used up one per request.
Whatever it streams is `ANSWER`, word by word, so that a test can tell what is missing or twice.
"""

import asyncio
import re
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from aiohttp import web

ANSWER = (
    "The harbour opens at six in the morning [1]. Boats longer than nine metres need a permit [1]."
    " Permits are issued by the harbour master on weekdays [1]. Dogs must be kept on a lead, and"
    " swimming between the piers is forbidden at all times [1]."
)
WORDS = ANSWER.split(" ")
_MODE = re.compile(r"\[\[([a-z_]+)(?::([\d.]+))?\]\]")


@dataclass
class LanguageModelServer:
    """Listens on a free port. `pause_s` is between two words."""

    words: list[str] = field(default_factory=lambda: list(WORDS))
    pause_s: float = 0.0
    modes: deque[str] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    port: int = 0
    # Held streams go on once it is set.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    streaming: int = 0
    most_streaming: int = 0
    hung_up: int = 0
    # When the first word of each question's answer was sent; monotonic seconds.
    first_at: dict[str, float] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def settings(self) -> dict[str, str]:
        """The environment variables of a worker that asks this provider."""
        return {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": "sk-test-0123456789abcdef"}

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        asked = orjson.loads(await request.read())
        self.requests.append(asked)
        self.keys.append(request.headers.get("Authorization", ""))
        mode, number = self._mode_of(asked)
        refused = self._refused(mode, number, asked)
        if refused is not None:
            return refused
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.streaming += 1
        self.most_streaming = max(self.most_streaming, self.streaming)
        try:
            await self._stream(request, response, asked, mode, number)
        except (ConnectionError, asyncio.CancelledError):
            self.hung_up += 1
            raise
        finally:
            self.streaming -= 1
        return response

    def _mode_of(self, asked: dict[str, Any]) -> tuple[str, float]:
        if self.modes:
            mode, _, number = self.modes.popleft().partition(":")
            return mode, float(number or 0)
        questions = [each["content"] for each in asked["messages"] if each["role"] == "user"]
        found = [match for each in questions for match in _MODE.findall(each)]
        return (found[-1][0], float(found[-1][1] or 0)) if found else ("stream", 0)

    def _refused(
        self, mode: str, number: float, asked: dict[str, Any]
    ) -> web.StreamResponse | None:
        last = asked["messages"][-1]
        if mode == "busy":
            return _error(429, "slow down", {"Retry-After": str(number or 1)})
        if mode == "broken":
            return _error(500, "out of order")
        if mode == "refuse":
            return _error(401, "no such key")
        if mode == "no_usage_option" and "stream_options" in asked:
            return _error(400, "unknown field stream_options")
        if mode == "no_prefill" and last["role"] == "assistant":
            return _error(400, "the last message must be the user's")
        return None

    async def _stream(
        self,
        request: web.Request,
        response: web.StreamResponse,
        asked: dict[str, Any],
        mode: str,
        number: float,
    ) -> None:
        words = self._words_for(asked, mode)
        middle = int(number) or len(words) // 2
        if mode == "stall_first":
            await self._hold(request)
        for at, word in enumerate(words):
            if at == middle and not await self._goes_on(request, response, mode):
                return
            if at == 0:
                question = asked["messages"][-1]["content"].rpartition("Question: ")[2]
                self.first_at.setdefault(question, time.monotonic())
            await self._write(response, word if at == 0 else f" {word}", split=mode == "split")
            pause = 0.2 if mode == "drip" else self.pause_s
            if pause:
                await asyncio.sleep(pause)
            if mode == "comments":
                await response.write(b": KEEP-ALIVE\n\n")
            if mode == "reason" and at == 0:
                await _send(response, {"delta": {"reasoning_content": "hmm"}})
        await self._finish(response, asked, mode, len(words))

    async def _goes_on(self, request: web.Request, response: web.StreamResponse, mode: str) -> bool:
        """Fail in the middle, if that is the mode; False: nothing more is said."""
        if mode == "stall":
            await self._hold(request)
        elif mode == "hold":
            await self.gate.wait()
        elif mode == "die":
            assert request.transport is not None
            request.transport.abort()
            return False
        elif mode == "error":
            body = {"error": {"message": "the model fell over", "type": "server_error"}}
            await response.write(b"data: " + orjson.dumps(body) + b"\n\n")
            return False
        elif mode == "garbage":
            await response.write(b"data: {what is this\n\n")
            return False
        return True

    async def _finish(
        self, response: web.StreamResponse, asked: dict[str, Any], mode: str, count: int
    ) -> None:
        if mode == "cut":
            return  # neither a reason nor [DONE]
        if mode != "no_reason":
            reason = "length" if mode == "length" else "stop"
            await _send(response, {"delta": {}, "finish_reason": reason})
        if asked.get("stream_options"):
            usage = {"prompt_tokens": 100, "completion_tokens": count, "total_tokens": 0}
            body = {**_HEAD, "choices": [], "usage": usage}
            await response.write(b"data: " + orjson.dumps(body) + b"\n\n")
        if mode != "no_done":
            await response.write(b"data: [DONE]\n\n")

    def _words_for(self, asked: dict[str, Any], mode: str) -> list[str]:
        """Go on where the conversation ends, as its way of continuing asks for."""
        said = [each for each in asked["messages"] if each["role"] == "assistant"]
        is_ask = asked["messages"][-1]["content"].startswith("Continue exactly")
        is_native = asked["messages"][-1]["role"] == "assistant"
        if not said or not (is_ask or is_native) or mode == "restart":
            return self.words
        done = len(said[-1]["content"].split())
        if mode == "repeat":
            done = max(0, done - 5)
        rest = self.words[done:]
        if is_native and mode != "repeat" and rest:
            return ["", *rest]  # begins with the space that is missing
        return rest

    async def _hold(self, request: web.Request) -> None:
        while not self.gate.is_set():
            await asyncio.sleep(0.02)
            if request.transport is None or request.transport.is_closing():
                raise ConnectionError

    async def _write(self, response: web.StreamResponse, text: str, *, split: bool) -> None:
        data = _event({"delta": {"content": text}, "index": 0, "finish_reason": None})
        if split:
            for at in range(0, len(data), 7):
                await response.write(data[at : at + 7])
        else:
            await response.write(data)


_HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "test"}


def _event(choice: dict[str, Any]) -> bytes:
    body = {**_HEAD, "choices": [{"index": 0, "finish_reason": None, **choice}]}
    return b"data: " + orjson.dumps(body) + b"\n\n"


async def _send(response: web.StreamResponse, choice: dict[str, Any]) -> None:
    await response.write(_event(choice))


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = orjson.dumps({"error": {"message": message}})
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
