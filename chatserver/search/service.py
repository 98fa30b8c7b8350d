"""Finding messages: only what the caller may read, the newest thousand of it ranked."""

import hashlib
from dataclasses import replace
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import orjson

from chatserver.chat.policies import fitting
from chatserver.chat.rows import shaped
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.rooms.service import RoomService
from chatserver.search import policies
from chatserver.search.errors import SearchCursorInvalidError
from chatserver.search.policies import Lexemes, Scope, any_of
from chatserver.search.repository import START, STOP, Found, Look, SearchRepository
from chatserver.search.schemas import Hit, Piece, SearchMessages, SearchResults

RANKED: Final = 1000
# A query with no more entries than this is answered by one look, without regard to time.
FEW: Final = 4000
# So many in the newest two days, and it is no rare word: the look for few would only cost.
COMMON: Final = 100
# One look reads no more entries than this, whatever the words: about a quarter of a second.
MOST: Final = 100_000
LAST_ID: Final = UUID(int=2**128 - 1)


class Seal(Protocol):
    """Makes cursors that only we can make."""

    def seal(self, content: bytes, purpose: str) -> str: ...

    def open(self, text: str, purpose: str) -> bytes | None: ...


class SearchService:
    def __init__(
        self, *, repository: SearchRepository, rooms: Open[RoomService], seal: Seal
    ) -> None:
        self._repository = repository
        self._rooms = rooms
        self._seal = seal

    async def search(self, principal: Principal, command: SearchMessages) -> SearchResults:
        """Find messages.

        Raises:
            PayloadInvalidError: the query means nothing, or the cursor is of another one.
            RoomNotFoundError, NotARoomMemberError: the room that is named is not to be read.
        """
        terms = policies.terms_of(command.q)
        if command.room_id is not None:
            async with self._rooms() as rooms:
                await rooms.visible(principal, command.room_id)
        language, now = await self._repository.language(principal.client_id)
        place = self._place(principal, command, now)
        words = await self._repository.query(language, terms)
        if words is None:
            return SearchResults(items=[])
        found = await self._newest(principal, command, words, place.before)
        key = _by_relevance if command.sort == "relevance" else _by_age
        found.sort(key=key)
        left = found if place.after is None else [it for it in found if key(it) > place.after]
        page = left[: command.limit]
        shown = await self._repository.show(
            [it.message_id for it in page], words=words, language=language, sender=command.sender_id
        )
        # Deleted meanwhile, some of it; and no more than one answer may carry.
        there = [it for it in page if it.message_id in shown]
        carried = there[: fitting([shown[it.message_id][0] for it in there])]
        if len(carried) < len(there):
            page = page[: page.index(carried[-1]) + 1]
        items = [
            Hit(
                message=shaped(shown[it.message_id][0]),
                score=it.score,
                highlights=_pieces(shown[it.message_id][1]),
            )
            for it in carried
        ]
        following = None
        if len(left) > len(page):
            following = _Place(place.before, key(page[-1]))
        elif len(found) == RANKED:
            oldest = min(found, key=lambda it: (it.created_at, it.message_id))
            following = _Place((oldest.created_at, oldest.message_id), None)
        return SearchResults(
            items=items, next_cursor=following and self._cursor(principal, command, following)
        )

    async def _newest(
        self,
        principal: Principal,
        command: SearchMessages,
        words: str,
        before: tuple[datetime, UUID],
    ) -> list[Found]:
        lexemes = Lexemes(principal.client_id)
        scope = await self._scope(principal, command, lexemes)
        if scope is None:
            return []
        look = Look(
            client_id=principal.client_id,
            keys=tuple(scope.keys(words)),
            words=words,
            since=command.from_,
            before=before,
            room_id=command.room_id,
            reader=principal.user_id if principal.is_user else None,
        )
        # Within few rooms there is rarely more to look at; of many or a whole client the last two
        # days may do for a common word. After that it pays to know whether the word is a rare one.
        found: list[Found] = []
        seen = 0
        for tried, window in enumerate(lexemes.windows(before[0], command.from_)):
            # Of a word that is in very many messages of two days there is no need to ask.
            if tried == (0 if scope.is_narrow else 2) and seen < COMMON:
                looked_at, all_of_it = await self._repository.look(
                    look, most=FEW + 1, wanted=RANKED
                )
                if looked_at <= FEW:
                    return all_of_it
            looked_at, more = await self._repository.look(
                replace(look, keys=(*look.keys, any_of(window))),
                most=MOST,
                wanted=RANKED - len(found),
            )
            found += more
            seen += looked_at
            if len(found) == RANKED:
                break
        return found

    async def _scope(
        self, principal: Principal, command: SearchMessages, lexemes: Lexemes
    ) -> Scope | None:
        """Tell what beside the words must be there; None: the caller is in no room."""
        rooms: list[UUID] | None = None
        if command.room_id is not None:
            rooms = [command.room_id]
        elif principal.is_user:
            rooms = await self._repository.rooms_of(principal.user_id, policies.NAMED_ROOMS + 1)
            if not rooms:
                return None
        return Scope(
            lexemes,
            rooms=rooms,
            sender=command.sender_id,
            has_attachment=command.has_attachment,
        )

    def _place(self, principal: Principal, command: SearchMessages, now: datetime) -> "_Place":
        if command.cursor is None:
            newest = now if command.to is None else min(now, command.to)
            return _Place((newest, UUID(int=0) if command.to is not None else LAST_ID), None)
        content = self._seal.open(command.cursor, _purpose(principal, command))
        if content is None:
            raise SearchCursorInvalidError.of("cursor", "is none of this search")
        at, message_id, after = orjson.loads(content)
        return _Place(
            (datetime.fromisoformat(at), UUID(message_id)),
            None if after is None else (after[0], after[1], after[2]),
        )

    def _cursor(self, principal: Principal, command: SearchMessages, place: "_Place") -> str:
        at, message_id = place.before
        content = orjson.dumps([at.isoformat(), str(message_id), place.after])
        return self._seal.seal(content, _purpose(principal, command))


class _Place:
    """Where a page begins: only messages before a moment, and after a place in the ranking."""

    def __init__(
        self, before: tuple[datetime, UUID], after: tuple[float, float, str] | None
    ) -> None:
        self.before = before
        self.after = after


def _by_relevance(found: Found) -> tuple[float, float, str]:
    return -found.score, -found.created_at.timestamp(), str(found.message_id)


def _by_age(found: Found) -> tuple[float, float, str]:
    return 0.0, -found.created_at.timestamp(), str(found.message_id)


def _purpose(principal: Principal, command: SearchMessages) -> str:
    # Another search's cursor would give pages of no list at all.
    asked = command.model_dump_json(exclude={"cursor", "limit"})
    digest = hashlib.sha256(asked.encode()).hexdigest()
    return f"search:{principal.client_id}:{principal.user_id}:{digest}"


def _pieces(headline: str) -> list[Piece]:
    pieces: list[Piece] = []
    for at, part in enumerate(headline.split(START)):
        marked, stop, rest = part.partition(STOP)
        if at == 0 or not stop:
            pieces.append(Piece(text=part, match=False))
            continue
        pieces += [Piece(text=marked, match=True), Piece(text=rest, match=False)]
    return [piece for piece in pieces if piece.text]
