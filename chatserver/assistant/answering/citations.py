"""Citation marks while an answer is being written: checked before anybody sees them.

A mark is `[n]`, final once it is sent; other shapes that models write become that, and numbers that
were never given are dropped.
"""

import re
from collections.abc import Set as AbstractSet
from typing import Final

OPENING: Final = "[【\uff3b"
CLOSING: Final = "]】\uff3d"
# How much is held back from a bracket that has not closed yet.
LONGEST_MARK: Final = 64
# Letters before the first digit: no mark has so many words.
MOST_LETTERS: Final = 14
# What may stand in a mark beside digits and brackets.
_WORDS: Final = r"(?:sources?|src|docs?|documents?|refs?|citations?)"
_ITEM: Final = rf"\^?\s*+(?:{_WORDS}\.?\s*+:?\s*+)?#?\d{{1,9}}+(?:†[^\],;]*+)?"
_RANGE: Final = re.compile(r"(\d{1,9})\s*[-\u2013\u2014]\s*(\d{1,9})")
# Nothing of it is tried twice (`+`): a model's text must not keep it busy.
_NUMBERED: Final = rf"(?:\d{{1,9}}+\s*+[-\u2013\u2014]\s*+\d{{1,9}}+|{_ITEM})"
_MARK: Final = re.compile(
    rf"\s*+{_NUMBERED}(?:(?:\s*+(?:[,;\uff0c、&]|and)\s*+|\s++){_NUMBERED})*+\s*+",
    re.IGNORECASE,
)
# What a model writes where it has no number at all.
_EMPTY: Final = re.compile(rf"\s*(?:undefined|null|none|{_WORDS}|n)\s*", re.IGNORECASE)
_BRACKETS: Final = re.compile(rf"[{re.escape(OPENING + CLOSING)}]+")
_NUMBER: Final = re.compile(r"\d{1,9}")
_DAGGER: Final = re.compile(r"†[^\],;]*")
LONGEST_RANGE: Final = 20


class CitationMarks:
    """Lets prose through with its marks checked. `known` are the numbers that were given."""

    def __init__(self, known: AbstractSet[int], *, shows: bool = True) -> None:
        """`shows` false: the bot shows no marks, all of them are taken out."""
        self._known = known
        self._shows = shows
        self._held = ""
        self.used: list[int] = []
        self.dropped = 0

    def feed(self, text: str) -> str:
        """Take more prose; give what can be shown of it by now."""
        return self._go(self._held + text, is_end=False)

    def flush(self) -> str:
        """Give what was held back: the prose ends here, or code begins."""
        return self._go(self._held, is_end=True)

    def _go(self, text: str, *, is_end: bool) -> str:
        self._held = ""
        shown: list[str] = []
        at = 0
        while at < len(text):
            start = _find_opening(text, at)
            if start < 0:
                shown.append(text[at:])
                break
            shown.append(text[at:start])
            end = _end_of(text, start)
            if end is None and not is_end:
                self._held = text[start:]
                break
            mark = None if end is None or end == 0 else self._mark(text[start:end])
            if mark is None or end is None:
                shown.append(text[start])
                at = start + 1
                continue
            shown.append(mark)
            if not mark:
                _take_back_space(shown, text[end : end + 1])
            at = end
        given = "".join(shown)
        if not is_end and given.endswith(" ") and not self._held:
            # A mark that is dropped takes the space before it along.
            given, self._held = given[:-1], " "
        elif not is_end and given.endswith(" "):
            given, self._held = given[:-1], " " + self._held
        return given

    def _mark(self, raw: str) -> str | None:
        """Give what stands for a closed bracket: its marks, nothing, or None if it is no mark."""
        inner = _BRACKETS.sub(" ", raw)
        if _EMPTY.fullmatch(inner):
            self.dropped += 1
            return ""
        if _MARK.fullmatch(inner) is None:
            return None
        numbers = _numbers(_DAGGER.sub("", inner))
        kept = [n for n in dict.fromkeys(numbers) if n in self._known]
        self.dropped += len(set(numbers)) - len(kept)
        for n in kept:
            if n not in self.used:
                self.used.append(n)
        return "".join(f"[{n}]" for n in kept) if self._shows else ""


def _numbers(inner: str) -> list[int]:
    def spread(found: re.Match[str]) -> str:
        first, last = int(found[1]), int(found[2])
        if first <= last < first + LONGEST_RANGE:
            return " ".join(str(n) for n in range(first, last + 1))
        return f"{first} {last}"

    return [int(found[0]) for found in _NUMBER.finditer(_RANGE.sub(spread, inner))]


def _find_opening(text: str, start: int) -> int:
    places = [place for char in OPENING if (place := text.find(char, start)) >= 0]
    return min(places, default=-1)


def _end_of(text: str, start: int) -> int | None:
    """Give where the bracket at `start` ends; None: not yet; 0: it is no mark."""
    depth, letters = 0, 0
    for at in range(start, min(len(text), start + LONGEST_MARK)):
        char = text[at]
        if char in OPENING:
            depth += 1
        elif char in CLOSING:
            depth -= 1
            if depth == 0:
                return at + 1
        elif char == "\n" or letters > MOST_LETTERS:
            return 0
        elif char.isdigit():
            letters = -LONGEST_MARK
        elif char.isalpha():
            letters += 1
    return None if len(text) - start < LONGEST_MARK else 0


def _take_back_space(shown: list[str], following: str) -> None:
    if following and following not in " .,;:!?)\n":
        return
    for at in range(len(shown) - 1, -1, -1):
        if shown[at]:
            shown[at] = shown[at].removesuffix(" ")
            return
