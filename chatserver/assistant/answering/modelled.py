"""Answers by a language model, and goes on from what was shown when one broke off."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

import structlog

from chatserver.assistant.answering.code_spans import CodeSpans
from chatserver.assistant.answering.errors import AnswerFailedError
from chatserver.assistant.answering.extractive import NOT_FOUND
from chatserver.assistant.answering.joining import Joint, NotJoinedError, RestartedError
from chatserver.assistant.answering.prompts import GO_ON, IN_FENCE, cut_back, messages
from chatserver.assistant.answering.schemas import (
    Anew,
    Asked,
    ContinueMode,
    Ended,
    Piece,
    Sign,
    Text,
)
from chatserver.assistant.answering.ways import endpoint_of
from chatserver.infra.language_model import BAD_REQUEST, UNPROCESSABLE, Delta, LanguageModelError

RETRIES: Final = 2
PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
# How known providers go on with an answer; whoever is not here is tried with vLLM's way.
KNOWN: Final[Mapping[str, ContinueMode]] = {
    "api.openai.com": "ask",
    "generativelanguage.googleapis.com": "ask",
    "api.anthropic.com": "ask",
    "openrouter.ai": "trailing",
    "api.mistral.ai": "prefix",
    "api.deepseek.com": "prefix",
}

log = structlog.get_logger()


class Model(Protocol):
    """What is asked; see `infra/language_model.py`."""

    base_url: str
    model: str

    def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Delta]: ...


class Remembers(Protocol):
    """What was learnt about endpoints, by all workers; see `ways.py`."""

    async def known(self, endpoint: str, model: str) -> ContinueMode | None: ...

    async def learn(self, endpoint: str, model: str, mode: ContinueMode) -> None: ...


class ModelAnswerer:
    """One endpoint. Which way of going on each of its models takes is found out and remembered."""

    def __init__(
        self,
        model: Model,
        *,
        continue_mode: ContinueMode | Literal["auto"] = "auto",
        max_tokens: int,
        ways: Remembers,
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._ways = ways
        self._endpoint = endpoint_of(model.base_url)
        # What the operator says holds; None: what was learnt does, else what is known of the host.
        self._ordered = None if continue_mode == "auto" else continue_mode
        self._likely: ContinueMode = KNOWN.get(urlsplit(model.base_url).hostname or "", "native")

    def model_of(self, asked: Asked) -> str:
        return asked.model or self._model.model

    async def answer(self, asked: Asked) -> AsyncIterator[Piece]:
        if asked.must_find and (asked.weak or not asked.sources) and not asked.shown:
            # No call without a context, unless the bot allows it.
            yield Text(NOT_FOUND)
            yield Ended("stop")
            return
        try:
            answering = self._go_on(asked) if asked.shown else self._begin(asked)
            async for piece in answering:
                yield piece
        except LanguageModelError as error:
            code = "provider_busy" if error.is_passing else "provider_failed"
            raise AnswerFailedError(code, f"The model failed: {error.message}") from error

    async def _begin(self, asked: Asked) -> AsyncIterator[Piece]:
        async for piece in self._told(messages(asked), asked):
            yield piece

    async def _go_on(self, asked: Asked) -> AsyncIterator[Piece]:
        """Climb down the ladder: natively, by asking, by beginning again.

        The rung that held is learnt. The last is not: a model begins anew at times, and what
        everybody has read would be taken away from all who come after.
        """
        model = self.model_of(asked)
        learnt = None if self._ordered else await self._ways.known(self._endpoint, model)
        tries = _rungs(self._ordered or learnt or self._likely, asked.shown)
        begun_again = ""
        for mode, given in tries:
            try:
                async for piece in self._joined(asked, mode, given):
                    if isinstance(piece, Ended) and not self._ordered and mode != learnt:
                        await self._ways.learn(self._endpoint, model, mode)
                    yield piece
                return
            except NotJoinedError:
                log.info("answer_not_joined", mode=mode)
            except RestartedError as error:
                log.info("answer_restarted", mode=mode)
                begun_again = error.text
            except LanguageModelError as error:
                if error.status not in {BAD_REQUEST, UNPROCESSABLE} or mode == "ask":
                    raise
                # It takes no conversation that ends with its own words.
                log.info("answer_not_gone_on_with", mode=mode)
        log.warning("answer_begun_anew", had_begun=bool(begun_again))
        async for piece in self._anew(asked):
            yield piece

    async def _joined(self, asked: Asked, mode: ContinueMode, seen: str) -> AsyncIterator[Piece]:
        said, extra = self._conversation(asked, mode, seen)
        joint = Joint(asked.shown, seen)
        async for piece in self._told(said, asked, extra=extra):
            if isinstance(piece, Text):
                text = joint.feed(piece.text)
                yield Text(text) if text else Sign()
            elif isinstance(piece, Ended):
                text = joint.flush()
                if text:
                    yield Text(text)
                by = "ask" if mode == "ask" else "native"
                yield Ended(piece.finish_reason, piece.usage, by)
            else:
                yield piece

    async def _anew(self, asked: Asked) -> AsyncIterator[Piece]:
        """Answer again, silently until there is as much as was shown; then that is replaced."""
        waiting = ""
        is_shown = False
        async for piece in self._told(messages(asked), asked):
            if isinstance(piece, Text) and not is_shown:
                waiting += piece.text
                if len(waiting) <= len(asked.shown):
                    yield Sign()
                    continue
            is_over = isinstance(piece, Ended)
            if not is_shown and (is_over or len(waiting) > len(asked.shown)):
                is_shown = True
                yield Anew()
                yield Text(waiting)
                if not is_over:
                    continue
            yield (
                Ended(piece.finish_reason, piece.usage, "restart")
                if isinstance(piece, Ended)
                else piece
            )

    def _conversation(
        self, asked: Asked, mode: ContinueMode, seen: str
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        said: list[dict[str, Any]] = [*messages(asked), {"role": "assistant", "content": seen}]
        if mode == "native":
            return said, {"continue_final_message": True, "add_generation_prompt": False}
        if mode == "prefix":
            said[-1]["prefix"] = True
        if mode == "ask":
            spans = CodeSpans()
            spans.feed(seen + "\n")
            said.append({"role": "user", "content": GO_ON + (IN_FENCE if spans.is_open else "")})
        return said, {}

    async def _told(
        self,
        said: list[dict[str, Any]],
        asked: Asked,
        *,
        extra: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Piece]:
        """Stream one conversation; what fails before its first piece is tried again."""
        for attempt in range(RETRIES + 1):
            has_begun = False
            try:
                async for piece in self._once(said, asked, extra):
                    has_begun = True
                    yield piece
                return
            except LanguageModelError as error:
                if has_begun or not error.is_passing or attempt == RETRIES:
                    raise
                pause = PAUSE_S * 2**attempt if error.retry_after_s is None else error.retry_after_s
                log.info("provider_asked_again", status=error.status, in_s=pause)
                await asyncio.sleep(min(pause, LONGEST_PAUSE_S))

    async def _once(
        self, said: list[dict[str, Any]], asked: Asked, extra: Mapping[str, Any] | None
    ) -> AsyncIterator[Piece]:
        reason: str | None = None
        usage: dict[str, int] = {}
        async for delta in self._model.stream(
            said,
            model=asked.model,
            temperature=asked.temperature,
            max_tokens=self._max_tokens,
            extra=extra,
        ):
            usage = delta.usage or usage
            reason = delta.finish_reason or reason
            yield Text(delta.text) if delta.text else Sign()
        if reason is None:
            # A clean end without a reason is not the end of the answer.
            raise LanguageModelError("the provider's stream ended before the answer did")
        yield Ended(reason, usage)


def _rungs(first: ContinueMode, shown: str) -> list[tuple[ContinueMode, str]]:
    """Give the ways to try, from the first on, each with what the model is given of the text."""
    seen = cut_back(shown)
    tries: list[tuple[ContinueMode, str]] = []
    if first not in {"ask", "restart"}:
        tries.append((first, seen))
    if first != "restart":
        tries += [("ask", seen), ("ask", shown)]
    return tries
