"""How two ways of finding become one order, and what of it is good enough to be given."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

# What is that far below the best says nothing, as long as some stay.
FLOOR: Final = 0.25
KEPT: Final = 3
# Nothing means something like the question, and no word of it is rare: not in the sources.
WEAK_COSINE: Final = 0.25
RARE: Final = math.log(5)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that one leg or both have found, with what each says of it."""

    chunk_id: UUID
    bot_id: UUID
    cosine: float
    bm25: float
    score: float = 0.0


def fuse(candidates: Sequence[Candidate], weight: float) -> list[Candidate]:
    """Give the best first: `weight` for meaning, the rest for words, each by its own best."""
    best_cosine = max((each.cosine for each in candidates), default=0.0)
    best_bm25 = max((each.bm25 for each in candidates), default=0.0)
    if best_cosine <= 0:
        weight = 0.0  # no embedder was at hand: words alone
    fused = [
        replace(
            each,
            score=weight * _share(each.cosine, best_cosine)
            + (1 - weight) * _share(each.bm25, best_bm25),
        )
        for each in candidates
    ]
    return sorted(fused, key=lambda each: (-each.score, each.chunk_id.int))


def good_enough(fused: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what is far below the best, unless hardly any would stay."""
    if not fused:
        return []
    least = FLOOR * fused[0].score
    return [each for place, each in enumerate(fused) if place < KEPT or each.score >= least]


def is_weak(candidates: Sequence[Candidate], rarest: float) -> bool:
    """Tell whether nothing found says anything; `rarest`: the highest idf of a word found."""
    closest = max((each.cosine for each in candidates), default=0.0)
    return closest < WEAK_COSINE and rarest <= RARE


def _share(value: float, best: float) -> float:
    return max(value, 0.0) / best if best > 0 else 0.0
