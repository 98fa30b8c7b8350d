"""Finds the embedder of a model: the embedded one, or those behind the configured endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.repository import EmbeddingModels
from chatserver.assistant.embedding.schemas import LOCAL as NAME
from chatserver.assistant.embedding.schemas import LOCAL_DIMENSION as DIMENSION
from chatserver.assistant.embedding.schemas import Embeds, Known, Vectors
from chatserver.kernel.opening import Open

if TYPE_CHECKING:
    from chatserver.assistant.embedding.local import LocalEmbedder
    from chatserver.assistant.embedding.remote import RemoteEmbedder

LARGEST_DIMENSION: Final = 4000  # what an index of half vectors can hold


@dataclass(frozen=True, slots=True)
class EmbeddingChoice:
    """Which model embeds what is new. Without `base_url` it is the embedded one.

    `dimension` is what the vectors must have; None: whatever the model gives.
    """

    model: str = NAME
    base_url: str | None = None
    api_key: str = ""
    dimension: int | None = None


class Embedders:
    """All models of one process. A model is asked for its dimension once, and that is stored."""

    def __init__(self, choice: EmbeddingChoice, models: Open[EmbeddingModels]) -> None:
        self._choice = choice
        self._models = models
        self._local: LocalEmbedder | None = None
        self._remote: dict[tuple[str, int | None], RemoteEmbedder] = {}
        self._shortened: set[str] = set()
        self._known: dict[int, Known] = {}
        self._default: dict[str, Known] = {}

    async def default(self, name: str | None = None) -> Known:
        """Give the model that embeds what is new, or the one called `name`.

        Raises:
            EmbedderAwayError: it was never asked for its dimension, and can't be now.
        """
        name = name or (self._choice.model if self._choice.base_url else NAME)
        if name not in self._default:
            dimension = DIMENSION if name == NAME else await self._probe(name)
            async with self._models() as models:
                known = await models.note(name, dimension)
            self._default[name] = self._known[known.id] = known
        return self._default[name]

    async def known(self, model_id: int) -> Known:
        """Give the model of stored vectors.

        Raises:
            EmbedderAwayError: there is none of this number.
        """
        if model_id not in self._known:
            async with self._models() as models:
                found = await models.find(model_id)
            if found is None:
                raise EmbedderAwayError("The model of these vectors is unknown.")
            self._known[model_id] = found
        return self._known[model_id]

    async def embed(self, texts: Sequence[str], model: Known | None = None) -> Vectors:
        """Embed texts by a model, or by the one for what is new.

        Raises:
            EmbedderAwayError: the model can't be reached, or it has changed its dimension.
        """
        model = model or await self.default()
        vectors = await self._of(model.name).embed(texts)
        if vectors.shape[1] != model.dimension and model.dimension == self._choice.dimension:
            self._shortened.add(model.name)
            vectors = await self._of(model.name).embed(texts)
        if vectors.shape[1] != model.dimension:
            raise EmbedderAwayError(
                f"{model.name} gives {vectors.shape[1]} numbers instead of {model.dimension}."
            )
        return vectors

    async def close(self) -> None:
        if self._local is not None:
            self._local.close()
        for remote in self._remote.values():
            await remote.close()

    def _of(self, name: str) -> Embeds:
        # Loaded when they are first needed: numpy is a tenth of a start, and most never need it.
        from chatserver.assistant.embedding.local import LocalEmbedder  # noqa: PLC0415
        from chatserver.assistant.embedding.remote import RemoteEmbedder  # noqa: PLC0415

        if name == NAME:
            self._local = self._local or LocalEmbedder()
            return self._local
        if self._choice.base_url is None:
            raise EmbedderAwayError(f"EMBEDDING_BASE_URL is not set, which {name} needs.")
        # Many servers don't know the option: only models that give too much are asked to shorten.
        wanted = self._choice.dimension if name in self._shortened else None
        if (name, wanted) not in self._remote:
            self._remote[name, wanted] = RemoteEmbedder(
                name=name,
                base_url=self._choice.base_url,
                api_key=self._choice.api_key,
                dimensions=wanted,
            )
        return self._remote[name, wanted]

    async def _probe(self, name: str) -> int:
        own = int((await self._of(name).embed(["dimension"])).shape[1])
        wanted = self._choice.dimension
        if wanted is not None and wanted != own:
            self._shortened.add(name)
            own = int((await self._of(name).embed(["dimension"])).shape[1])
            if own != wanted:
                raise EmbedderAwayError(
                    f"{name} gives {own} numbers, EMBEDDING_DIMENSION says {wanted}."
                )
        if own > LARGEST_DIMENSION:
            raise EmbedderAwayError(f"{name} gives {own} numbers, at most 4,000 can be searched.")
        return own
