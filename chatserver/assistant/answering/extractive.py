"""Answers without a model: the sentences of the sources that say most about the question."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from chatserver.assistant.answering.schemas import Anew, Asked, Ended, Piece, Source, Text
from chatserver.assistant.answering.sentences import (
    SHORTEST,
    Sentence,
    Weights,
    cosine,
    sentences_of,
    terms_of,
)

NAME: Final = "extractive"
LEAD: Final = "From your sources:"
NOT_FOUND: Final = "I found nothing about this in your sources."
SOURCES: Final = 5
SHOWN: Final = 3
# Of the score, the part that is meaning rather than words.
MEANING: Final = 0.7
MMR: Final = 0.85
LEAST: Final = 0.12
MOST_SENTENCES: Final = 200
PAUSE_S: Final = 0.035

# Texts to vectors, off the event loop; None of them when no embedder is at hand.
Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]] | None]]


@dataclass(slots=True)
class _Candidate:
    source: Source
    sentence: Sentence
    terms: list[str]
    vector: Sequence[float] | None = None
    score: float = 0.0


class ExtractiveAnswerer:
    """The embedded answerer: deterministic, so that it can be continued by saying it again."""

    def __init__(self, embed: Embed | None = None) -> None:
        self._embed = embed

    def model_of(self, asked: Asked) -> str:  # noqa: ARG002 - there is only one
        return NAME

    async def answer(self, asked: Asked) -> AsyncIterator[Piece]:
        parts = await self._parts(asked)
        whole = "".join(parts)
        if asked.shown and not whole.startswith(asked.shown):
            # The sources were cut differently then, or another answerer had begun.
            yield Anew()
            skip = 0
        else:
            skip = len(asked.shown)
        for part in parts:
            rest = part[skip:]
            skip = max(0, skip - len(part))
            if rest:
                yield Text(rest)
                # So that each sentence is a piece of its own.
                await asyncio.sleep(PAUSE_S)
        yield Ended("stop", {}, "native" if asked.shown else None)

    async def _parts(self, asked: Asked) -> list[str]:
        chosen = [] if asked.weak else await self._choose(asked)
        if not chosen:
            return [NOT_FOUND]
        parts = [LEAD]
        for each in chosen:
            text = " ".join(each.sentence.text.split())
            parts.append(f"\n\n{text} [{each.source.n}]" if asked.cites else f"\n\n{text}")
        return parts

    async def _choose(self, asked: Asked) -> list[_Candidate]:
        candidates = [
            _Candidate(source, sentence, terms_of(sentence.text))
            for source in asked.sources[:SOURCES]
            for sentence in sentences_of(source.text)
            if len(sentence.text) >= SHORTEST
        ][:MOST_SENTENCES]
        await self._score(asked.question, candidates)
        chosen: list[_Candidate] = []
        while len(chosen) < SHOWN:
            best = max(
                (each for each in candidates if each not in chosen and each.score >= LEAST),
                key=lambda each: _marginal(each, chosen),
                default=None,
            )
            if best is None:
                break
            chosen.append(best)
        return sorted(chosen, key=lambda each: (each.source.n, each.sentence.start))

    async def _score(self, question: str, candidates: list[_Candidate]) -> None:
        weights = Weights(each.terms for each in candidates)
        asked = terms_of(question)
        vectors = None
        if self._embed is not None and candidates:
            vectors = await self._embed([question, *(each.sentence.text for each in candidates)])
        for at, each in enumerate(candidates):
            words = weights.overlap(asked, each.terms)
            if vectors is None:
                each.score = words
            else:
                each.vector = vectors[at + 1]
                meaning = max(0.0, cosine(vectors[0], each.vector))
                each.score = MEANING * meaning + (1 - MEANING) * words


def _marginal(candidate: _Candidate, chosen: Sequence[_Candidate]) -> float:
    """Weigh what a sentence says against how much of it was said already."""
    said = max((_likeness(candidate, each) for each in chosen), default=0.0)
    return MMR * candidate.score - (1 - MMR) * said


def _likeness(first: _Candidate, second: _Candidate) -> float:
    if first.vector is not None and second.vector is not None:
        return cosine(first.vector, second.vector)
    one, other = set(first.terms), set(second.terms)
    return len(one & other) / len(one | other) if one | other else 0.0
