"""What a query means, and which part of the index it needs. Pure decisions."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

from chatserver.kernel.errors import PayloadInvalidError

Kind: TypeAlias = Literal["word", "phrase", "prefix"]

MOST_TERMS: Final = 20
# Of shorter beginnings there are too many words.
SHORTEST_PREFIX: Final = 2
# So many rooms are named in the index look-up itself; whoever has more is filtered afterwards. Of
# more than a few it pays only beside a span of time.
NAMED_ROOMS: Final = 96
FEW_ROOMS: Final = 16
_TERM: Final = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_PREFIX: Final = re.compile(r"(\w+)\*")
_DAY_S: Final = 86_400
_SPAN: Final = 32
# Days, and then spans of 32 days, that are looked through one after the other, the newest first.
_DAYS: Final = (1, 1, 2, 4, 8, 16)
_SPANS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Term:
    kind: Kind
    text: str
    is_not: bool


def terms_of(q: str) -> list[Term]:
    """Read a query: words, "phrases", beginnings* and -what must not be there.

    Raises:
        PayloadInvalidError: too many terms, a beginning that is too short, or nothing to look for.
    """
    terms: list[Term] = []
    for minus, phrase, word in _TERM.findall(q):
        prefix = _PREFIX.fullmatch(word)
        if prefix is not None:
            if len(prefix[1]) < SHORTEST_PREFIX:
                raise PayloadInvalidError.of(
                    "q", f"a beginning needs {SHORTEST_PREFIX} characters before the *"
                )
            terms.append(Term("prefix", prefix[1], bool(minus)))
        elif word or phrase.strip():
            kind: Kind = "word" if word else "phrase"
            terms.append(Term(kind, word or phrase, bool(minus)))
    if len(terms) > MOST_TERMS:
        raise PayloadInvalidError.of("q", f"has more than {MOST_TERMS} terms")
    if not terms:
        raise PayloadInvalidError.of("q", "has nothing to look for")
    if all(term.is_not for term in terms):
        raise PayloadInvalidError.of("q", "says only what must not be there")
    return terms


class Lexemes:
    """The lexemes of one client that no text can have; a migration makes the same in SQL."""

    def __init__(self, client_id: UUID) -> None:
        self._client_id = client_id
        self._client = _md5(str(client_id))[:8]

    @property
    def attachment(self) -> str:
        return f"\x01a{self._client}"

    def room(self, room_id: UUID) -> str:
        return f"\x01r{_md5(str(room_id))[:10]}"

    def sender(self, external_id: str) -> str:
        return f"\x01s{_md5(str(self._client_id) + external_id)[:10]}"

    def windows(self, newest: datetime, oldest: datetime | None) -> Iterator[list[str]]:
        """Give spans of time as lexemes, from the newest back, each longer than the one before.

        They don't overlap. The last one reaches back 22 years, or to `oldest`.
        """
        day = int(newest.timestamp() // _DAY_S)
        last = -1 if oldest is None else int(oldest.timestamp() // _DAY_S)
        for width in _DAYS:
            yield [f"\x01d{self._client}{each:x}" for each in range(day, day - width, -1)]
            day -= width
            if day < last:
                return
        # On to the next whole span, day by day.
        if (day + 1) % _SPAN:
            whole = day // _SPAN * _SPAN
            yield [f"\x01d{self._client}{each:x}" for each in range(day, whole - 1, -1)]
            day = whole - 1
        span = day // _SPAN
        for width in _SPANS:
            if span < last // _SPAN:
                return
            yield [f"\x01m{self._client}{each:x}" for each in range(span, span - width, -1)]
            span -= width


class Scope:
    """What a search is narrowed to beside its words; `rooms` None: the whole client."""

    def __init__(
        self,
        lexemes: Lexemes,
        *,
        rooms: Sequence[UUID] | None,
        sender: str | None,
        has_attachment: bool | None,
    ) -> None:
        named = [] if rooms is None or len(rooms) > NAMED_ROOMS else list(rooms)
        self._keys = [any_of([lexemes.room(room_id) for room_id in named])] if named else []
        if sender is not None:
            self._keys.append(any_of([lexemes.sender(sender)]))
        sign = {None: "", True: "&", False: "&!"}[has_attachment]
        # With the words, as what must not be there can be no condition of its own in the index.
        self._also = f"{sign}{any_of([lexemes.attachment])}" if sign else ""
        self.is_narrow = sender is not None or 0 < len(named) <= FEW_ROOMS

    def keys(self, words: str) -> list[str]:
        """Give conditions that must all hold, the words first."""
        return [f"({words}){self._also}", *self._keys]


def any_of(lexemes: Sequence[str]) -> str:
    """Write "one of these" for a tsquery; ours need no more than quotes."""
    return "(" + "|".join(f"'{each}'" for each in lexemes) + ")"


def _md5(text: str) -> str:
    # Only to be short and evenly spread, and PostgreSQL has it, too.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
