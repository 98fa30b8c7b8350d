"""Any endpoint that speaks OpenAI's embeddings: OpenAI itself, Ollama, vLLM, llama.cpp."""

import asyncio
import importlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.schemas import Vectors

if TYPE_CHECKING:
    import openai

MOST_PER_CALL: Final = 64
TOTAL_S: Final = 30.0
TRIES: Final = 3
LONGEST_PAUSE_S: Final = 10.0
RATE_LIMITED: Final = 429
SERVER_ERROR: Final = 500


class RemoteEmbedder:
    """`dimensions` asks the model to shorten its vectors; many servers don't know the option."""

    def __init__(
        self, *, name: str, base_url: str, api_key: str, dimensions: int | None = None
    ) -> None:
        self.name = name
        self._dimensions = dimensions
        # Loaded when it is first needed: most processes never do.
        self._client: openai.AsyncOpenAI = _library().AsyncOpenAI(
            base_url=base_url,
            # The library refuses an empty key; local servers want none.
            api_key=api_key or "none",
            timeout=TOTAL_S,
            max_retries=0,
        )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        several = [
            await self._call(texts[start : start + MOST_PER_CALL])
            for start in range(0, len(texts), MOST_PER_CALL)
        ]
        return np.concatenate(several)

    async def close(self) -> None:
        await self._client.close()

    async def _call(self, texts: Sequence[str]) -> Vectors:
        library = _library()
        for attempt in range(1, TRIES + 1):
            try:
                return await self._ask(texts)
            except library.APIStatusError as error:
                passing = error.status_code == RATE_LIMITED or error.status_code >= SERVER_ERROR
                if not passing or attempt == TRIES:
                    raise EmbedderAwayError(
                        f"The embedding endpoint answers {error.status_code}."
                    ) from error
                await asyncio.sleep(_pause(error, attempt))
            except library.OpenAIError as error:
                raise EmbedderAwayError(
                    f"The embedding endpoint can't be reached ({type(error).__name__})."
                ) from error
        raise AssertionError("the last try returns or raises")

    async def _ask(self, texts: Sequence[str]) -> Vectors:
        answer = await self._client.embeddings.create(
            model=self.name,
            input=list(texts),
            # Not every server knows base64, which the library would ask for by itself.
            encoding_format="float",
            dimensions=_library().omit if self._dimensions is None else self._dimensions,
        )
        rows = [each.embedding for each in sorted(answer.data, key=lambda each: each.index)]
        try:
            vectors = np.array(rows, np.float32)
        except ValueError as error:
            raise EmbedderAwayError(
                "The embedding endpoint gives vectors of many sizes."
            ) from error
        if vectors.shape[:1] != (len(texts),) or vectors.ndim != 2:  # noqa: PLR2004 - a table
            raise EmbedderAwayError("The embedding endpoint gives another number of vectors.")
        if not np.isfinite(vectors).all():
            raise EmbedderAwayError("The embedding endpoint gives vectors that are no numbers.")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _library() -> Any:  # noqa: ANN401 - the module
    return importlib.import_module("openai")


def _pause(error: "openai.APIStatusError", attempt: int) -> float:
    asked = error.response.headers.get("retry-after", "")
    seconds = float(asked) if asked.isdecimal() else 2.0 ** (attempt - 1)
    return min(seconds, LONGEST_PAUSE_S) * (1 + random.random() / 4)  # noqa: S311 - no secret
