"""Every sealed value of the database: whether it can be opened, and sealing it with the newest key.

Whoever adds a sealed column adds it to the list that `cli/secrets.py` gives to this.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import TextClause, text

from chatserver.infra.database import Database
from chatserver.infra.secrets import SecretBox, UnreadableSecretError

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed values. `keys` is the primary key, `place` what a value is bound to.

    `also` are further columns that `place` needs.
    """

    table: str
    column: str
    keys: tuple[str, ...]
    place: Callable[[dict[str, Any]], str]
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that no key of the ring opens; `row` names it without telling of it."""

    column: str
    row: str


class Sealed:
    """Walks through sealed columns in pages, while the server goes on."""

    def __init__(self, database: Database, box: SecretBox, columns: Sequence[SealedColumn]) -> None:
        self._database = database
        self._box = box
        self._columns = columns

    async def total(self) -> int:
        """Count all sealed values."""
        counted = 0
        async with self._database.transaction() as session:
            for column in self._columns:
                found = await session.execute(
                    text(f"select count({column.column}) from {column.table}")  # noqa: S608
                )
                counted += int(found.scalar_one())
        return counted

    async def has_unknown_keys(self) -> bool:
        """Tell whether any value was sealed with a key that is not in the ring; opens nothing."""
        async with self._database.transaction() as session:
            for column in self._columns:
                found = await session.execute(
                    text(
                        f"select exists (select from {column.table}"  # noqa: S608 - our own names
                        f" where {column.column} is not null"
                        f" and substring({column.column} from 1 for 5) <> all (:heads))"
                    ),
                    {"heads": self._box.heads},
                )
                if found.scalar_one():
                    return True
        return False

    async def check(self, seen: Callable[[int], None]) -> list[Unreadable]:
        """Open every value; `seen` is told how many more were looked at."""
        found: list[Unreadable] = []
        for column in self._columns:
            _, unreadable = await self._walk(column, seen, reseal=False)
            found += unreadable
        return found

    async def rotate(self, seen: Callable[[int], None]) -> tuple[int, list[Unreadable]]:
        """Seal every value with the newest key; how many it were, and which can't be opened.

        A value that somebody changes meanwhile is left to them: they seal with the newest key, too.
        """
        done = 0
        found: list[Unreadable] = []
        for column in self._columns:
            count, unreadable = await self._walk(column, seen, reseal=True)
            done += count
            found += unreadable
        return done, found

    async def _walk(
        self, column: SealedColumn, seen: Callable[[int], None], *, reseal: bool
    ) -> tuple[int, list[Unreadable]]:
        done = 0
        found: list[Unreadable] = []
        after: dict[str, Any] | None = None
        while True:
            async with self._database.transaction() as session:
                result = await session.execute(_page(column, first=after is None), after or {})
                rows = [dict(row) for row in result.mappings()]
                for row in rows:
                    sealed = row[column.column]
                    try:
                        plain = self._box.open(sealed, bound_to=column.place(row))
                    except UnreadableSecretError:
                        found.append(Unreadable(column.name, _shown(column, row)))
                        continue
                    if reseal and not self._box.is_current(sealed):
                        fresh = self._box.seal(plain, bound_to=column.place(row))
                        values = {name: row[name] for name in column.keys}
                        changed = await session.execute(
                            _change(column), values | {"old": sealed, "fresh": fresh}
                        )
                        done += int(changed.rowcount)  # type: ignore[attr-defined]
            seen(len(rows))
            if len(rows) < PAGE:
                return done, found
            after = {name: rows[-1][name] for name in column.keys}


def _page(column: SealedColumn, *, first: bool) -> TextClause:
    keys = ", ".join(column.keys)
    wanted = ", ".join((*column.keys, column.column, *column.also))
    bounds = ", ".join(f":{name}" for name in column.keys)
    behind = "" if first else f" and ({keys}) > ({bounds})"
    return text(
        f"select {wanted} from {column.table} where {column.column} is not null{behind}"  # noqa: S608
        f" order by {keys} limit {PAGE}"
    )


def _change(column: SealedColumn) -> TextClause:
    same = " and ".join(f"{name} = :{name}" for name in column.keys)
    return text(
        f"update {column.table} set {column.column} = :fresh"  # noqa: S608 - our own names
        f" where {same} and {column.column} = :old"
    )


def _shown(column: SealedColumn, row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={row[name]}" for name in column.keys)
