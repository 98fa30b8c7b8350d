"""How what was read becomes passages to be written, and which of them are there already."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chatserver.assistant.reading.language import searchable
from chatserver.assistant.reading.process import ReadChunk, ReadDocument
from chatserver.kernel.ids import uuid7


@dataclass(frozen=True, slots=True)
class NewPart:
    start: int
    end: int
    header: str
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A passage to be written. `searchable` is its text as the postings are made of it."""

    id: UUID
    ord: int
    start: int
    end: int
    pages: tuple[int, int] | None
    heading: str
    text: str
    searchable: str
    sha256: bytes
    parts: tuple[NewPart, ...]


def cut(found: ReadDocument) -> list[tuple[NewChunk, ReadChunk]]:
    """Give each passage as it is to be written, beside the one that was read."""
    return [(_chunk(number, read, found.config), read) for number, read in enumerate(found.chunks)]


def _chunk(number: int, read: ReadChunk, config: str) -> NewChunk:
    parts = tuple(
        NewPart(
            part.start,
            part.end,
            part.header,
            hashlib.sha256(read.embedded(part).encode()).digest(),
        )
        for part in read.parts
    )
    # All that a search stands on: the same hash, the same postings and vectors.
    whole = hashlib.sha256(f"{config}\0{read.heading}\0{read.text}".encode())
    for part in parts:
        whole.update(part.sha256)
    return NewChunk(
        id=uuid7(),
        ord=number,
        start=read.start,
        end=read.end,
        pages=read.pages,
        heading=read.heading,
        text=read.text,
        searchable=searchable(f"{read.heading}\n{read.text}"),
        sha256=whole.digest(),
        parts=parts,
    )


def matched(
    old: Sequence[Any], chunks: Sequence[NewChunk]
) -> tuple[dict[UUID, NewChunk], list[NewChunk]]:
    """Find the passages that are there already; each is taken once."""
    known: dict[bytes, list[UUID]] = {}
    for each in reversed(old):
        # Without vectors of this model it is written anew.
        if each.n_parts:
            known.setdefault(bytes(each.sha256), []).append(each.id)
    kept: dict[UUID, NewChunk] = {}
    new: list[NewChunk] = []
    for chunk in chunks:
        same = known.get(chunk.sha256)
        if same:
            kept[same.pop()] = chunk
        else:
            new.append(chunk)
    return kept, new
