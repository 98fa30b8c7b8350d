"""A language model behind an OpenAI-compatible endpoint, streamed: hosted, vLLM, Ollama, llama.cpp.

The address is the operator's own and may be private. Nothing here retries: who asks knows whether
anything was shown yet.
"""

import importlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    import openai

CONNECT_S: Final = 5.0
# Some servers refuse an empty key, and the library does, too.
NO_KEY: Final = "none"
BAD_REQUEST: Final = 400
UNPROCESSABLE: Final = 422
TOO_MANY: Final = 429
SERVER_ERROR: Final = 500
LONGEST_MESSAGE: Final = 300

log = structlog.get_logger()


class LanguageModelError(Exception):
    """The provider refused or failed. `is_passing`: the same may succeed a little later.

    `status` is its HTTP status, None when the line broke or the stream was not as it should be.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        is_passing: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.is_passing = is_passing
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Delta:
    """One piece of a stream: all of it may be empty. Without `text` it is a sign of life."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)


class LanguageModel:
    """One endpoint. The library is loaded when it is first asked: that takes a second.

    `silence_s`: how long the provider may be silent between two pieces before the line is dropped.
    """

    def __init__(self, *, base_url: str | None, api_key: str, model: str, silence_s: float) -> None:
        self.base_url = base_url or "https://api.openai.com/v1"
        self.model = model
        self._api_key = api_key or NO_KEY
        self._silence_s = silence_s
        self._client: openai.AsyncOpenAI | None = None
        self._tells_usage = True

    async def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Delta]:
        """Stream the answer to a conversation. It may end without a `finish_reason`: cut off.

        Raises:
            LanguageModelError: refused, broken, or an error inside of the stream.
        """
        library = _library()
        options: dict[str, Any] = {}
        if temperature is not None:
            options["temperature"] = temperature
        if max_tokens is not None:
            options["max_tokens"] = max_tokens
        options |= extra or {}
        try:
            stream = await self._open(list(messages), model or self.model, options)
            try:
                async for chunk in stream:
                    yield _delta(chunk)
            finally:
                await stream.close()
        except library.APIError as error:
            raise _translated(error) from error
        except ValueError as error:
            # What is no JSON, or no UTF-8.
            raise LanguageModelError("the provider's stream could not be read") from error

    async def _open(self, messages: list[Any], model: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - the library's stream
        library = _library()
        asked: dict[str, Any] = {"messages": messages, "model": model, "stream": True, **options}
        if self._tells_usage:
            try:
                return await self._post(asked | {"stream_options": {"include_usage": True}})
            except library.APIStatusError as error:
                if error.status_code not in {BAD_REQUEST, UNPROCESSABLE}:
                    raise
                if "stream_options" not in str(error.body) + str(error.message):
                    raise
            # Some servers don't know it.
            self._tells_usage = False
        return await self._post(asked)

    async def _post(self, asked: dict[str, Any]) -> Any:  # noqa: ANN401 - the library's stream
        """Ask for plain objects: its models of them cost ten times what is done with a piece."""
        library = _library()
        client = self._client or self._connect()
        return await client.post(
            "/chat/completions",
            body=asked,
            cast_to=object,
            stream=True,
            stream_cls=library.AsyncStream[object],
        )

    def warm(self) -> None:
        """Load the library and connect to nothing: the first question need not wait for that."""
        if self._client is None:
            self._connect()

    def _connect(self) -> "openai.AsyncOpenAI":
        library = _library()
        self._client = library.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._api_key,
            # Two layers of retries multiply.
            max_retries=0,
            timeout=library.Timeout(
                connect=CONNECT_S, read=self._silence_s, write=CONNECT_S * 2, pool=CONNECT_S
            ),
        )
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def _library() -> Any:  # noqa: ANN401 - the module
    return importlib.import_module("openai")


def _delta(chunk: Any) -> Delta:  # noqa: ANN401 - JSON of somebody else's
    """Read one piece; what is missing or strange in it is a sign of life."""
    if not isinstance(chunk, dict):
        return Delta()
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return Delta(usage=_usage(chunk))  # the last one, or a keep-alive
    said = choice.get("delta")
    text = said.get("content") if isinstance(said, dict) else None
    reason = choice.get("finish_reason")
    return Delta(
        text if isinstance(text, str) else "",
        reason if isinstance(reason, str) and reason else None,
        _usage(chunk),
    )


def _usage(chunk: dict[str, Any]) -> dict[str, int]:
    told = chunk.get("usage")
    if not isinstance(told, dict):
        return {}
    counts = {name: told.get(name) for name in ("prompt_tokens", "completion_tokens")}
    return {name: count if isinstance(count, int) else 0 for name, count in counts.items()}


def _translated(error: "openai.APIError") -> LanguageModelError:
    library = _library()
    message = str(getattr(error, "message", "") or error)[:LONGEST_MESSAGE]
    if isinstance(error, library.APITimeoutError):
        return LanguageModelError("the provider was silent for too long", is_passing=True)
    if isinstance(error, library.APIConnectionError):
        return LanguageModelError("the provider can't be reached, or hung up", is_passing=True)
    if isinstance(error, library.APIStatusError):
        status = error.status_code
        return LanguageModelError(
            message,
            status=status,
            is_passing=status == TOO_MANY or status >= SERVER_ERROR,
            retry_after_s=_seconds(error.response.headers.get("retry-after")),
        )
    # An error object inside of a stream that began well.
    return LanguageModelError(message)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None  # a date: nobody who streams sends one
