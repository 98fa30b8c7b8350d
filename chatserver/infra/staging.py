"""A sorter for more lines than fit into memory: SQLite in a temporary file. Blocking."""

import itertools
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

BATCH: Final = 2000
# What is staged can be staged again: nothing of it needs to survive a crash.
_SETUP: Final = """
pragma journal_mode = off;
pragma synchronous = off;
pragma cache_size = -32768;
create table line (grouped text not null, kind integer not null, seq integer, at text, n integer,
  body blob not null);
"""
_INDEX: Final = "create index line_order on line (grouped, kind, seq is null, seq, at, n)"
_READ: Final = """
select n, body from line where grouped = ? and kind = ? order by seq is null, seq, at, n
"""
_GROUPS: Final = "select grouped, min(n) as first from line group by grouped order by first"


@dataclass(frozen=True, slots=True)
class Line:
    """A line to be sorted: within its group and kind by `seq`, those without one by `at`.

    `number` is its place in the file, which decides where everything else is equal.
    """

    group: str
    kind: int
    number: int
    body: bytes
    seq: int | None = None
    at: str = ""


class Staging:
    """Give it lines in any order, then read them group by group. A context manager."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="chatserver-import-")
        self._file = sqlite3.connect(Path(self._directory.name) / "lines", isolation_level=None)
        self._waiting: list[tuple[object, ...]] = []

    def __enter__(self) -> Self:
        self._file.executescript(_SETUP)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._directory.cleanup()

    def add(self, line: Line) -> None:
        self._waiting.append((line.group, line.kind, line.seq, line.at, line.number, line.body))
        if len(self._waiting) >= BATCH:
            self._flush()

    def seal(self) -> None:
        """End adding; now it can be read."""
        self._flush()
        self._file.execute(_INDEX)

    def groups(self) -> Iterator[str]:
        """Give the groups, by the first line of each."""
        for row in self._file.execute(_GROUPS).fetchall():
            yield row[0]

    def lines(self, group: str, kind: int) -> Generator[tuple[int, bytes], None, None]:
        """Give number and body of a group's lines of a kind, in order."""
        yield from self._file.execute(_READ, (group, kind))

    def chunks(self, group: str, kind: int, size: int) -> Iterator[list[tuple[int, bytes]]]:
        """Give the same, up to `size` of them at a time."""
        lines = self.lines(group, kind)
        while chunk := list(itertools.islice(lines, size)):
            yield chunk

    def _flush(self) -> None:
        self._file.execute("begin")
        self._file.executemany("insert into line values (?, ?, ?, ?, ?, ?)", self._waiting)
        self._file.execute("commit")
        self._waiting.clear()
