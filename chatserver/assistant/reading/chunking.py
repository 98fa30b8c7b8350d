"""Cuts a text into chunks that are shown and parts that are embedded, each with its place."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from chatserver.assistant.reading.shapes import Heading

CHUNK_TOKENS: Final = 512
PART_TOKENS: Final = 128
# A header takes at most a quarter of its part; a token is about 3.5 characters.
HEADER_CHARACTERS: Final = 112
TABLE: Final = 7

_HEADING: Final = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)
_CELL: Final = r"[ \t]*+:?-{2,}+:?[ \t]*+"
_RULE: Final = re.compile(rf"^[ \t]*+\|?{_CELL}(?:\|{_CELL})++\|?[ \t]*+$")


@dataclass(frozen=True, slots=True)
class Part:
    """An embedded passage: its span inside the chunk's text, and what is embedded above it."""

    start: int
    end: int
    header: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A retrievable passage: its span in the document's text."""

    start: int
    end: int
    text: str
    heading: str
    parts: tuple[Part, ...]


Spans: TypeAlias = list[tuple[int, int]]


class Chunker:
    """Cuts by the embedded model's tokens, whatever model embeds in the end.

    `grammar` is of the programming language that texts are in: they are then cut between functions
    and statements.
    """

    def __init__(self, tokenizer: Tokenizer, grammar: Any = None) -> None:  # noqa: ANN401 - opaque
        self._plain: TextSplitter | CodeSplitter
        self._parts: TextSplitter | CodeSplitter
        if grammar is None:
            cut = TextSplitter.from_huggingface_tokenizer
            self._plain = cut(tokenizer, CHUNK_TOKENS, trim=False)
            self._parts = cut(tokenizer, PART_TOKENS)
        else:
            cut_code = CodeSplitter.from_huggingface_tokenizer
            self._plain = cut_code(grammar, tokenizer, CHUNK_TOKENS, trim=False)
            self._parts = cut_code(grammar, tokenizer, PART_TOKENS)
        self._marked = MarkdownSplitter.from_huggingface_tokenizer(
            tokenizer, CHUNK_TOKENS, trim=False
        )

    def cut(
        self, text: str, *, title: str, is_marked: bool, headings: Sequence[Heading] = ()
    ) -> Iterator[Chunk]:
        """Cut a text; the chunks cover all of it. `is_marked`: it is Markdown."""
        outline = Outline([*markdown_headings(text), *headings] if is_marked else headings)
        splitter = self._marked if is_marked else self._plain
        start = 0
        for at, body in splitter.chunk_indices(text):
            # Whatever the splitter left between two chunks belongs to the one before.
            start, end = at, at + len(body)
            if not body.strip():
                continue
            first = start + len(body) - len(body.lstrip())
            yield Chunk(
                start=start,
                end=end,
                text=body,
                heading=outline.path(first),
                parts=tuple(self._cut_parts(body, start, title, outline)),
            )

    def _cut_parts(self, body: str, start: int, title: str, outline: "Outline") -> Iterator[Part]:
        for at, text in self._parts.chunk_indices(body):
            above = outline.path(start + at, but=text)
            header = " > ".join(each for each in (title, above) if each)
            header = shortened(header, min(HEADER_CHARACTERS, max(24, len(text) // 3)))
            yield Part(at, at + len(text), header)


class Outline:
    """Which headings stand above a place."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._headings = sorted(headings, key=lambda each: each.at)
        self._places = [each.at for each in self._headings]
        self._paths: list[tuple[Heading, ...]] = []
        path: tuple[Heading, ...] = ()
        for each in self._headings:
            path = (*(above for above in path if above.level < each.level), each)
            self._paths.append(tuple(above for above in path if above.text))

    def path(self, at: int, *, but: str = "") -> str:
        """Give the headings above a place, the outermost first, without those `but` begins with."""
        found = bisect_right(self._places, at) - 1
        if found < 0:
            return ""
        begin = but.lstrip("#| \t\n")
        return " > ".join(
            each.text for each in self._paths[found] if not begin.startswith(each.text)
        )


def markdown_headings(text: str) -> Iterator[Heading]:
    """Find headings and the first rows of tables, outside of fenced code."""
    fences = [found.start() for found in _FENCE.finditer(text)]
    for found in _HEADING.finditer(text):
        if bisect_right(fences, found.start()) % 2 == 0:
            yield Heading(found.start(), len(found[1]), found[2].strip())
    yield from _tables(text)


def _tables(text: str) -> Iterator[Heading]:
    if "|" not in text:
        return
    at = 0
    above = ""
    in_table = False
    for line in text.splitlines(keepends=True):
        if not in_table and above and _RULE.match(line):
            in_table = True
            yield Heading(at + len(line), TABLE, " ".join(above.strip(" |\t\r\n").split()))
        elif in_table and "|" not in line:
            in_table = False
            yield Heading(at, TABLE, "")
        above = line if "|" in line else ""
        at += len(line)


def shortened(text: str, most: int) -> str:
    """Cut at a word, keeping the end: the nearest heading says most."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    kept = text[-most:]
    return kept[kept.find(" ") + 1 :]
