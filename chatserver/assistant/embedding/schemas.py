"""What embeds, as others see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The embedded model, which needs no network.
LOCAL: Final = "all-MiniLM-L6-v2-int8"
LOCAL_DIMENSION: Final = 384
# One row a text, each of length 1.
Vectors: TypeAlias = "NDArray[np.float32]"


@dataclass(frozen=True, slots=True)
class Known:
    """A model that vectors are stored of: `id` stands in their rows."""

    id: int
    name: str
    dimension: int


class Embeds(Protocol):
    """One model."""

    name: str

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, off the event loop.

        Raises:
            EmbedderAwayError: the model can't be reached or loaded now.
        """
        ...


def written(vector: "NDArray[np.float32]") -> str:
    """Write a vector as PostgreSQL reads it."""
    return "[" + ",".join(f"{value:.6g}" for value in vector.tolist()) + "]"
