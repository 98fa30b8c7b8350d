"""What an answer's marks refer to: the exact words of the source, and how well they bear it out."""

import re
from collections.abc import Sequence
from typing import Any, Final

from chatserver.assistant.answering.code_spans import CodeSpans
from chatserver.assistant.answering.extractive import Embed
from chatserver.assistant.answering.schemas import Source
from chatserver.assistant.answering.sentences import (
    Sentence,
    Weights,
    cosine,
    sentences_of,
    terms_of,
)

WEAK: Final = 0.35
LONGEST_QUOTE: Final = 400
_MARK: Final = re.compile(r"\[(\d{1,4})\]")


async def citations_of(
    text: str, sources: Sequence[Source], embed: Embed | None = None
) -> list[dict[str, Any]]:
    """Give `context.citations`: one for each (sentence, source) that the answer cites.

    The same source with the same quote comes once, with its best support; `weak` marks those whose
    words hardly bear out the sentence. They are shown, not hidden.
    """
    known = {source.n: source for source in sources}
    claims = [
        (sentence, known[n])
        for sentence, numbers in cited_sentences(text)
        for n in numbers
        if n in known
    ]
    if not claims:
        return []
    split = {n: sentences_of(known[n].text) for n in {source.n for _, source in claims}}
    weights = Weights(terms_of(each.text) for found in split.values() for each in found)
    vectors = await _vectors([claim for claim, _ in claims], split, embed)
    best: dict[tuple[int, int], dict[str, Any]] = {}
    for claim, source in claims:
        found = _best(claim, split[source.n], weights, vectors)
        if found is None:
            continue
        span, support = found
        key = (source.n, span.start)
        if key not in best or best[key]["support"] < support:
            best[key] = _citation(source, span, support)
    return sorted(best.values(), key=lambda each: (each["n"], each["char_start"]))


def cited_sentences(text: str) -> list[tuple[str, list[int]]]:
    """Give each sentence with the numbers that stand in it or right behind it; code has none."""
    spans = CodeSpans()
    prose = "".join(
        " " * len(part) if is_code else part for is_code, part in spans.feed(text) + spans.flush()
    )
    # A mark after the full stop belongs to the sentence before it.
    prose = re.sub(r"([.!?])((?:\s?\[\d{1,4}\])+)", r"\2\1", prose)
    found = []
    for sentence in sentences_of(prose):
        numbers = [int(n) for n in _MARK.findall(sentence.text)]
        if numbers:
            plain = _MARK.sub("", sentence.text).strip()
            found.append((plain, list(dict.fromkeys(numbers))))
    return found


async def _vectors(
    claims: Sequence[str], split: dict[int, list[Sentence]], embed: Embed | None
) -> dict[str, Sequence[float]]:
    if embed is None:
        return {}
    texts = list(dict.fromkeys([*claims, *(each.text for s in split.values() for each in s)]))
    found = await embed(texts)
    return {} if found is None else dict(zip(texts, found, strict=True))


def _best(
    claim: str,
    sentences: Sequence[Sentence],
    weights: Weights,
    vectors: dict[str, Sequence[float]],
) -> tuple[Sentence, float] | None:
    asked = terms_of(claim)
    best: tuple[Sentence, float] | None = None
    for sentence in sentences:
        support = weights.overlap(asked, terms_of(sentence.text))
        if claim in vectors and sentence.text in vectors:
            meaning = max(0.0, cosine(vectors[claim], vectors[sentence.text]))
            support = max(support, meaning if support > 0 else meaning * 0.5)
        if best is None or support > best[1]:
            best = (sentence, support)
    return best


def _citation(source: Source, span: Sentence, support: float) -> dict[str, Any]:
    end = min(span.end, span.start + LONGEST_QUOTE)
    found: dict[str, Any] = {
        "n": source.n,
        "chunk_id": str(source.chunk_id),
        "document_id": str(source.document_id),
        "title": source.title,
        "quote": source.text[span.start : end],
        "char_start": source.char_start + span.start,
        "char_end": source.char_start + end,
        "support": round(min(1.0, support), 3),
    }
    if source.page is not None:
        found["page"] = source.page
    if source.url is not None:
        found["url"] = source.url
    if support < WEAK:
        found["weak"] = True
    return found
