"""Sentences, and how much two texts say the same: what extracts and citations are made of."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

# A sentence that is longer is cut there: tables and lists have no full stops.
LONGEST: Final = 600
SHORTEST: Final = 20
_BREAK: Final = re.compile(
    r"(?<=[.!?。\uff01\uff1f])[\"'”\u2019)\]]*\s+(?=[\"'“\u2018(\[]*[^\sa-z])|\n\s*\n|\n(?=\s*[-*•\d#|])"
)
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:[A-Z]|e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Art|Sec|approx|ca|bzw|Nr)\.)$"
)
_TERM: Final = re.compile(r"\w+", re.UNICODE)
# So frequent that they tell nothing; the weight of the others comes from the sources themselves.
_STOP: Final = """
a an and are as at be been but by can could did do does for from had has have how i if in into is it
its me my no not of on or our she should so such than that the their them then there these they this
to was we were what when where which who whom whose why will with would you your he his her about
all any also der die das und ist im den von zu mit ein eine wie wer wo
"""
STOP: Final = frozenset(_STOP.split())


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, and where it stands in its text (a half-open span of code points)."""

    text: str
    start: int
    end: int


def sentences_of(text: str) -> list[Sentence]:
    """Split a text into sentences with their places; nothing but white space is left out."""
    found: list[Sentence] = []
    start = 0
    for end, following in _breaks(text):
        found.extend(_pieces(text, start, end))
        start = following
    found.extend(_pieces(text, start, len(text)))
    return found


def _breaks(text: str) -> Iterator[tuple[int, int]]:
    for found in _BREAK.finditer(text):
        before = text[max(0, found.start() - 12) : found.start()]
        if "\n" not in found[0] and _ABBREVIATION.search(before):
            continue
        # Closing quotes and brackets belong to the sentence before.
        closing = len(found[0]) - len(found[0].lstrip("\"'”\u2019)]"))
        yield found.start() + closing, found.end()


def _pieces(text: str, start: int, end: int) -> Iterator[Sentence]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > LONGEST:
        cut = text.rfind(" ", start + LONGEST // 2, start + LONGEST)
        cut = start + LONGEST if cut < 0 else cut
        yield Sentence(text[start:cut], start, cut)
        start = cut
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield Sentence(text[start:end], start, end)


def terms_of(text: str) -> list[str]:
    """Give the words that tell something, with the commonest endings taken off."""
    return [_stem(word) for word in _TERM.findall(text.casefold()) if word not in STOP]


def _stem(word: str) -> str:
    for ending in ("ings", "ing", "edly", "ies", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:  # noqa: PLR2004 - a stem
            return word[: -len(ending)]
    return word


class Weights:
    """How much each term tells, among some texts: the rarer, the more."""

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        counted: Counter[str] = Counter()
        self._count = 0
        for terms in texts:
            counted.update(set(terms))
            self._count += 1
        self._in = counted

    def __call__(self, term: str) -> float:
        seen = self._in[term]
        return math.log(1 + (self._count - seen + 0.5) / (seen + 0.5)) + 0.1

    def overlap(self, asked: Sequence[str], said: Sequence[str]) -> float:
        """Give which part of what `asked` weighs stands in `said`, 0 to 1."""
        wanted = set(asked)
        total = sum(self(term) for term in wanted)
        return sum(self(term) for term in wanted & set(said)) / total if total else 0.0


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """Give the cosine of two vectors, 0 where one is nothing."""
    product = sum(a * b for a, b in zip(first, second, strict=True))
    length = math.sqrt(sum(a * a for a in first)) * math.sqrt(sum(b * b for b in second))
    return product / length if length else 0.0
