"""The reading process: a document on standard input, its passages as lines of JSON on the output.

The first argument is JSON: `{name, title, memory, cpu_s}`. Every line is one object with an
`event`: `read` (what it is), `chunk` (a passage), `end`; or `refused` with a `reason`.
"""

import importlib
import json
import sys
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from chatserver.assistant.embedding.carried import tokenizer
from chatserver.assistant.reading.chunking import Chunker
from chatserver.assistant.reading.cleaning import Cleaned, clean
from chatserver.assistant.reading.confinement import Bounds, confine
from chatserver.assistant.reading.decoding import decode
from chatserver.assistant.reading.language import config_of
from chatserver.assistant.reading.shapes import MOST_CHARACTERS, Heading, Refused, Text
from chatserver.assistant.reading.sniffing import code_of, kind_of

_HERE: Final = "chatserver.assistant.reading."
# Each in a module of its own: only what this document needs is loaded.
READERS: Final = {
    "pdf": ("pdf", "read"),
    "docx": ("office", "read_word"),
    "pptx": ("office", "read_slides"),
    "xlsx": ("office", "read_sheets"),
    "html": ("web", "read_page"),
    "epub": ("web", "read_book"),
}
_TYPES: Final = {
    "markdown": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "text": "text/plain",
}
TITLE_CHARACTERS: Final = 256
WORDS_OF_A_TITLE: Final = 2


def main() -> None:
    asked = json.loads(sys.argv[1])
    data = sys.stdin.buffer.read()
    try:
        kind = kind_of(data, asked["name"])
        read: Callable[[bytes], Text] | None = None
        if kind in READERS:
            module, function = READERS[kind]
            read = getattr(importlib.import_module(_HERE + module), function)
        code = code_of(kind, asked["name"])
        chunker = Chunker(tokenizer(), None if code is None else grammar(code[0], code[1]))
        confine(Bounds(memory=asked["memory"], cpu_s=asked["cpu_s"]))
        found = read(data) if read is not None else plain(data, kind)
        if code is not None:
            found = replace(found, media_type=code[2])
        tell(found, chunker, name=asked["name"], given=asked["title"])
    except Refused as refused:
        _say("refused", reason=refused.reason)
    except (MemoryError, RecursionError):
        _say("refused", reason="too_large")


def grammar(package: str, function: str) -> Any:  # noqa: ANN401 - a pointer of the parser's
    """Load the grammar of a programming language."""
    return getattr(importlib.import_module(package), function)()


def plain(data: bytes, kind: str) -> Text:
    """Read a text as it is: its places are those of the file."""
    text = decode(data)
    if len(text) > MOST_CHARACTERS:
        raise Refused("too_large")
    headings: tuple[Heading, ...] = ()
    if kind in {"csv", "tsv"}:
        first = text.split("\n", 1)[0]
        headings = (Heading(len(first) + 1, 7, " ".join(first.split())),)
    return Text(text, _TYPES[kind], is_marked=kind == "markdown", headings=headings)


def tell(found: Text, chunker: Chunker, *, name: str, given: str | None) -> None:
    """Clean a text, cut it and write it out."""
    cleaned = clean(found.text)
    if not cleaned.text.strip():
        raise Refused("empty")
    own = " ".join(clean(found.title).text.split())[:TITLE_CHARACTERS]
    stem = PurePosixPath(name).stem.replace("_", " ").replace("-", " ")
    title = given or own or name
    # What a person or the document itself calls it says something; `scan0042` does not.
    spoken = given or own or (stem if len(stem.split()) >= WORDS_OF_A_TITLE else "")
    _say(
        "read",
        title=title,
        media_type=found.media_type,
        pages=len(found.pages) or None,
        characters=len(found.text),
        config=config_of(cleaned.text),
    )
    headings = [Heading(_moved(cleaned, each.at), each.level, each.text) for each in found.headings]
    for chunk in chunker.cut(
        cleaned.text, title=spoken, is_marked=found.is_marked, headings=headings
    ):
        start, end = cleaned.span(chunk.start, chunk.end)
        pages = _pages(found.pages, start, end)
        _say(
            "chunk",
            start=start,
            end=end,
            pages=pages,
            heading=chunk.heading,
            text=chunk.text,
            parts=[[part.start, part.end, part.header] for part in chunk.parts],
        )
    _say("end")


def _moved(cleaned: Cleaned, at: int) -> int:
    low = at - len(cleaned.gaps)
    return next((each for each in range(max(0, low), at + 1) if cleaned.place(each) >= at), at)


def _pages(begins: tuple[int, ...], start: int, end: int) -> list[int] | None:
    if not begins:
        return None
    return [max(1, bisect_right(begins, start)), max(1, bisect_right(begins, max(start, end - 1)))]


def _say(event: str, **members: Any) -> None:  # noqa: ANN401 - JSON
    sys.stdout.buffer.write(json.dumps({"event": event, **members}).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
