"""What reading a document gives, and why it may give nothing."""

from dataclasses import dataclass
from typing import Final

MOST_CHARACTERS: Final = 5_000_000
MOST_PAGES: Final = 2_000
# Between two pages, slides or chapters.
BETWEEN: Final = "\n\n"


class Refused(Exception):  # noqa: N818 - it is no error of ours
    """The document gives no text, for a reason that its owner is told."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands above the text from `at` on: level 1 to 6, or a table's first row (7)."""

    at: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A document's text. `pages` are the places where they begin; empty: it has none.

    `is_marked`: it is Markdown. `title` is what the document calls itself.
    """

    text: str
    media_type: str
    title: str = ""
    pages: tuple[int, ...] = ()
    is_marked: bool = False
    headings: tuple[Heading, ...] = ()


class Collected:
    """Joins what a reader finds, page by page, up to the longest text."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self.pages: list[int] = []

    def add(self, piece: str, *, is_page: bool = False) -> None:
        """Add a piece; an empty page still counts as one.

        Raises:
            Refused: the text is too long.
        """
        if self._pieces and (piece or is_page):
            self._append(BETWEEN)
        if is_page:
            self.pages.append(self._length)
        self._append(piece)

    def line(self, line: str) -> None:
        """Add a line to the last piece."""
        self._append(f"\n{line}")

    def text(self) -> str:
        return "".join(self._pieces)

    def _append(self, piece: str) -> None:
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > MOST_CHARACTERS:
            raise Refused("too_large")


def cell(value: object) -> str:
    """Write a table's cell on one line."""
    text = "" if value is None else str(value)
    return " ".join(text.replace("|", "/").split())


def row(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"


def table(rows: list[list[str]]) -> str:
    """Write a table as Markdown; its first row is the header."""
    kept = [each for each in rows if any(each)]
    if not kept:
        return ""
    width = max(len(each) for each in kept)
    padded = [each + [""] * (width - len(each)) for each in kept]
    return "\n".join([row(padded[0]), row(["---"] * width), *(row(each) for each in padded[1:])])
