"""The files of an import: each with its pieces, which follow it in the sorted lines."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import orjson

from chatserver.transfer.errors import LineConflictError
from chatserver.transfer.schemas import Counted, FileLine, FilePartLine

Kept: TypeAlias = Literal["new", "known", "missing", "foreign"]
# Keeps a file with its content, or with what the store has already when there is none in the lines.
Keep: TypeAlias = Callable[[FileLine, AsyncIterator[bytes] | None], Awaitable[Kept]]
Progress: TypeAlias = Callable[[int], None]


class SortedFiles:
    """Reads one piece at a time: a file may be larger than memory."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self._lines = lines
        self._next = next(lines, None)
        # How many lines were read so far.
        self.read = 0

    def head(self) -> tuple[int, FileLine] | None:
        """Give the next file, with the number of its line; None: there are no more.

        Raises:
            LineConflictError: a piece comes without its file.
        """
        if self._next is None:
            return None
        number, raw = self._next
        if orjson.loads(raw)["type"] != "file":
            raise LineConflictError.at(number, "is part of a file that no line describes")
        self._step()
        return number, FileLine.model_validate_json(raw)

    def has_content(self, file: FileLine) -> bool:
        return self._part_of(file) is not None

    async def content(self, file: FileLine) -> AsyncIterator[bytes]:
        """Give the pieces of the file that `head` gave last."""
        while (part := self._part_of(file)) is not None:
            self._step()
            yield part.data

    def skip(self, file: FileLine) -> None:
        """Pass by whatever is left of a file."""
        while self._part_of(file) is not None:
            self._step()

    def _part_of(self, file: FileLine) -> FilePartLine | None:
        if self._next is None:
            return None
        raw = self._next[1]
        given = orjson.loads(raw)
        if given["type"] != "file_part" or given["file_id"] != file.id:
            return None
        return FilePartLine.model_validate_json(raw)

    def _step(self) -> None:
        self.read += 1
        self._next = next(self._lines, None)


class FileTaker:
    """Keeps the files of an import, and remembers which of them are new."""

    def __init__(self, keep: Keep, counted: Counted) -> None:
        self._keep = keep
        self._counted = counted
        self._new: set[object] = set()

    async def take(self, files: SortedFiles, progress: Progress) -> None:
        """Keep them one after the other.

        Raises:
            LineConflictError: another client has a file of that id.
        """
        while (found := files.head()) is not None:
            number, file = found
            before = files.read - 1
            kept = await self._keep(file, files.content(file) if files.has_content(file) else None)
            files.skip(file)
            if kept == "foreign":
                raise LineConflictError.at(number, "another file has this id")
            if kept == "new":
                self._counted.files += 1
                self._new.add(file.id)
            self._counted.known += kept == "known"
            self._counted.files_missing += kept == "missing"
            progress(files.read - before)

    def are_carried(self, message: Mapping[str, Any]) -> bool:
        """Tell whether a message carries one that is new."""
        return any(each.get("file_id") in self._new for each in message["attachments"])
