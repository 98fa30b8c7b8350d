"""Takes out of a text what nobody sees: there attackers hide instructions."""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

# Control and format characters, surrogates, tags and the variation selectors that carry bytes:
# Cc without tab and line ends, Cf, Cs, U+E0000 to U+E0FFF. Joiners may stay, see `_JOINERS`.
_HIDDEN: Final = re.compile(
    "[\\x00-\\x08\\x0b\\x0e-\\x1f\\x7f-\\x84\\x86-\\x9f\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f"
    "\\u0890\\u0891\\u08e2\\u180e\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ud800-\\udfff"
    "\\ufeff\\ufff9-\\ufffb\\U000110bd\\U000110cd\\U00013430-\\U0001343f"
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff]"
)
# Persian, Indic scripts and emoji are spelt with single joiners between their own characters.
_JOINERS: Final = frozenset("\u200c\u200d")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text without hidden characters. `place` tells where a position stood in the text before."""

    text: str
    # For each character that was taken out, the position in `text` behind it.
    gaps: tuple[int, ...] = ()

    def place(self, position: int) -> int:
        return position + bisect_right(self.gaps, position)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Give the span of the text before; an empty one stays empty."""
        if start >= end:
            return self.place(start), self.place(start)
        return self.place(start), self.place(end - 1) + 1


def clean(text: str) -> Cleaned:
    """Take out every hidden character."""
    kept: list[str] = []
    gaps: list[int] = []
    begin = length = 0
    for found in _HIDDEN.finditer(text):
        at = found.start()
        if text[at] in _JOINERS and _joins(text, at):
            continue
        kept.append(text[begin:at])
        length += at - begin
        gaps.append(length)
        begin = at + 1
    if not gaps:
        return Cleaned(text)
    kept.append(text[begin:])
    return Cleaned("".join(kept), tuple(gaps))


def _joins(text: str, at: int) -> bool:
    return 0 < at < len(text) - 1 and all(
        not side.isascii() and not side.isspace() and _HIDDEN.match(side) is None
        for side in (text[at - 1], text[at + 1])
    )
