"""What the owner of sessions can do with them: rooms of type `assistant` with one bot."""

from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from chatserver.assistant.bots.models import Bot, RoomBot
from chatserver.assistant.generation.errors import AnswerNotFoundError
from chatserver.assistant.generation.saying import Told
from chatserver.assistant.generation.schemas import AnswerRef, AnswerState, Ask
from chatserver.assistant.generation.service import GenerationService
from chatserver.assistant.sessions.errors import SessionNotFoundError
from chatserver.assistant.sessions.repository import SessionRepository, SessionRow
from chatserver.assistant.sessions.schemas import (
    MOST_IMPORTED,
    CreateSession,
    DeletedSession,
    ExportedSession,
    FoundMessage,
    ImportedSession,
    ImportSession,
    ListSessions,
    SaidOut,
    SayInSession,
    SearchSessions,
    SessionOut,
    SessionPath,
    UpdateSession,
)
from chatserver.chat.rows import shaped
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import ALL_SCOPES, Caller, Principal
from chatserver.rooms.models import Room
from chatserver.rooms.schemas import CreateRoom, RoomRef, UpdateMember, UpdateRoom
from chatserver.rooms.service import RoomService

CONTEXT_BYTES: Final = 256 * 1024
SNIPPET: Final = 300


class Bots(Protocol):
    """What this needs of the bots' service."""

    async def usable(self, principal: Principal, bot_id: UUID) -> Bot: ...

    async def first_usable(self, client_id: UUID, user_id: UUID) -> Bot | None: ...

    async def seat_in(self, room: Room, bot: Bot, *, answers: str = "auto") -> RoomBot: ...


class Members(Protocol):
    """What this needs of the members' service."""

    async def update(self, principal: Principal, command: UpdateMember) -> Any: ...  # noqa: ANN401 - not looked at


class People(Protocol):
    """Where external ids become server ids."""

    async def find_one(self, client_id: UUID, external_id: str, *, field: str) -> UUID: ...


class SessionService:
    """Sessions of one transaction. A master key acts for whom it names, or whose session it is."""

    def __init__(
        self,
        *,
        sessions: SessionRepository,
        rooms: RoomService,
        members: Members,
        bots: Bots,
        people: People,
        answers: GenerationService,
    ) -> None:
        self._sessions = sessions
        self._rooms = rooms
        self._members = members
        self._bots = bots
        self._people = people
        self._answers = answers

    async def create(self, principal: Principal, command: CreateSession) -> SessionOut:
        """Make a session.

        Raises:
            UserNotFoundError, BotNotFoundError
        """
        owner = await self._owner(principal, command.user_id)
        bot = (
            await self._bots.usable(owner, command.bot_id)
            if command.bot_id is not None
            else await self._bots.first_usable(owner.client_id, owner.user_id)
        )
        made = await self._rooms.create(owner, CreateRoom(type="assistant", title=command.title))
        if bot is not None:
            room, _ = await self._rooms.visible(owner, made.id)
            await self._bots.seat_in(room, bot)
        return shown(await self._row(owner, made.id))

    async def find_page(self, principal: Principal, command: ListSessions) -> Page[SessionOut]:
        rows, counted = await self._sessions.page(
            principal.client_id,
            await self._of(principal, command.user_id),
            q=command.q,
            offset=command.offset,
            limit=command.size,
        )
        return Page[SessionOut].of([shown(row) for row in rows], command, counted)

    async def search(self, principal: Principal, command: SearchSessions) -> Page[FoundMessage]:
        if command.q is None:
            return Page[FoundMessage].of([], command, 0)
        rows, counted = await self._sessions.search(
            principal.client_id,
            await self._of(principal, command.user_id),
            q=command.q,
            offset=command.offset,
            limit=command.size,
        )
        items = [FoundMessage(**{**row, "text": _snippet(row["text"], command.q)}) for row in rows]
        return Page[FoundMessage].of(items, command, counted)

    async def get(self, principal: Principal, command: SessionPath) -> SessionOut:
        return shown(await self._row(principal, command.session_id))

    async def update(self, principal: Principal, command: UpdateSession) -> SessionOut:
        row = await self._row(principal, command.session_id)
        owner = _acting(principal, row)
        if command.title is not None:
            await self._rooms.update(owner, UpdateRoom(room_id=row.id, title=command.title))
        if command.is_favorite is not None and command.is_favorite != row.is_favorite:
            await self._members.update(
                owner,
                UpdateMember(room_id=row.id, user_id=row.user_id, is_favorite=command.is_favorite),
            )
        return shown(await self._row(principal, row.id))

    async def toggle_favorite(self, principal: Principal, command: SessionPath) -> SessionOut:
        row = await self._row(principal, command.session_id)
        return await self.update(
            principal, UpdateSession(session_id=row.id, is_favorite=not row.is_favorite)
        )

    async def delete(self, principal: Principal, command: SessionPath) -> DeletedSession:
        row = await self._row(principal, command.session_id)
        await self._rooms.delete(_acting(principal, row), RoomRef(room_id=row.id))
        return DeletedSession(id=row.id)

    async def say(self, principal: Principal, command: SayInSession) -> SaidOut:
        """Store a message; the user's is answered, unless `generate` is false."""
        row = await self._row(principal, command.session_id)
        owner = _acting(principal, row)
        client_msg_id = command.client_msg_id or uuid7().hex
        _check_context(command.context)
        if command.sender == "user" and command.generate is not False:
            asked = await self._answers.ask(
                owner,
                Ask(room_id=row.id, content=command.content, client_msg_id=client_msg_id),
            )
            return SaidOut.model_construct(message=asked.question, message_id=asked.message_id)
        if command.generate:
            raise PayloadInvalidError.of("generate", "only a user's message is answered")
        members = await self._answers.tell(
            owner,
            row.id,
            Told(
                sender=command.sender,
                bot_id=row.bot_id,
                content=command.content,
                client_msg_id=client_msg_id,
                context=command.context,
            ),
        )
        if command.context is not None:
            members = members | {"context": command.context}  # facts leave it out, answers do not
        return SaidOut.model_construct(message=shaped(members), message_id=None)

    async def resume(self, principal: Principal, command: SessionPath) -> AnswerState:
        """Let the session's last answer go on. Raises as `GenerationService.resume`."""
        row, answer = await self._latest(principal, command)
        return await self._answers.resume(_acting(principal, row), AnswerRef(message_id=answer))

    async def cancel(self, principal: Principal, command: SessionPath) -> AnswerState:
        """End the session's last answer, if it is still being written."""
        row, answer = await self._latest(principal, command)
        return await self._answers.cancel(_acting(principal, row), AnswerRef(message_id=answer))

    async def export(self, principal: Principal, command: SessionPath) -> ExportedSession:
        row = await self._row(principal, command.session_id)
        messages = await self._sessions.messages(row.id, limit=MOST_IMPORTED)
        return ExportedSession(
            version=1,
            session={
                "id": str(row.id),
                "title": row.title,
                "is_favorite": row.is_favorite,
                "created_at": rfc3339(row.created_at),
            },
            messages=[
                {
                    "id": str(each["id"]),
                    "sender": each["sender"],
                    "content": each["content"] or each["partial_content"] or "",
                    "context": each["context"],
                    "created_at": rfc3339(each["created_at"]),
                }
                for each in messages
            ],
        )

    async def take_in(self, principal: Principal, command: ImportSession) -> ImportedSession:
        """Make a session of an export; nobody answers what is in it."""
        owner = await self._owner(principal, command.user_id)
        name = f"import:{owner.external_id[:64]}:{command.session.id or uuid7()}"
        made = await self._rooms.create(
            owner,
            CreateRoom(type="assistant", title=command.session.title, external_id=name),
        )
        if not made.created:
            return ImportedSession(
                **shown(await self._row(owner, made.id)).model_dump(), imported=False
            )
        bot = (
            await self._bots.usable(owner, command.bot_id)
            if command.bot_id is not None
            else await self._bots.first_usable(owner.client_id, owner.user_id)
        )
        if bot is not None:
            room, _ = await self._rooms.visible(owner, made.id)
            await self._bots.seat_in(room, bot)
        for each in command.messages:
            _check_context(each.context)
            if not each.content:
                continue
            await self._answers.tell(
                owner,
                made.id,
                Told(
                    sender=each.sender,
                    bot_id=None if bot is None else bot.id,
                    content=each.content,
                    client_msg_id=f"import:{each.id or uuid7()}",
                    context=each.context,
                    created_at=_moment(each.created_at),
                    is_import=True,
                ),
            )
        if command.session.is_favorite:
            await self.update(owner, UpdateSession(session_id=made.id, is_favorite=True))
        return ImportedSession(**shown(await self._row(owner, made.id)).model_dump(), imported=True)

    async def _of(self, principal: Principal, user_id: str | None) -> UUID | None:
        """Tell whose sessions are looked at; None: everybody's, for the application."""
        if not principal.is_user and user_id is None:
            return None
        return (await self._owner(principal, user_id)).user_id

    async def _owner(self, principal: Principal, user_id: str | None) -> Principal:
        if principal.is_user:
            if user_id not in {None, principal.external_id}:
                raise PayloadInvalidError.of("user_id", "only a master key names the user")
            return principal
        if user_id is None:
            raise PayloadInvalidError.of("user_id", "a master key names the user")
        found = await self._people.find_one(principal.client_id, user_id, field="user_id")
        return _person(principal.client_id, found, user_id)

    async def _row(self, principal: Principal, session_id: UUID) -> SessionRow:
        owner = principal.user_id if principal.is_user else None
        row = await self._sessions.find(principal.client_id, session_id, owner)
        if row is None:
            raise SessionNotFoundError
        return row

    async def _latest(self, principal: Principal, command: SessionPath) -> tuple[SessionRow, UUID]:
        row = await self._row(principal, command.session_id)
        answer = await self._sessions.latest_answer(principal.client_id, row.id)
        if answer is None:
            raise AnswerNotFoundError
        return row, answer


def shown(row: SessionRow) -> SessionOut:
    """Give a session's shape on the wire."""
    return SessionOut(
        id=row.id,
        user_id=row.user_id,
        title=row.title,
        is_favorite=row.is_favorite,
        bot_id=row.bot_id,
        is_active=row.is_active,
        messages_count=row.msg_no,
        last_activity_at=row.last_activity_at,
        created_at=row.created_at,
    )


def _acting(principal: Principal, row: SessionRow) -> Principal:
    """Give who acts on a session: its owner, also where the application does it for him."""
    if principal.is_user:
        return principal
    return _person(principal.client_id, row.owner_id, row.user_id)


def _person(client_id: UUID, user_id: UUID, external_id: str) -> Principal:
    return Principal(
        caller=Caller.USER,
        client_id=client_id,
        user_id=user_id,
        external_id=external_id,
        scopes=ALL_SCOPES,
    )


def _check_context(context: dict[str, Any] | None) -> None:
    if context is not None and len(orjson.dumps(context)) > CONTEXT_BYTES:
        raise PayloadInvalidError.of("context", f"has more than {CONTEXT_BYTES} bytes")


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PayloadInvalidError.of("messages", "created_at must be an RFC 3339 time") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _snippet(text: str, words: str) -> str:
    """Give the part of a text around what was looked for."""
    at = max(0, text.lower().find(words.lower()) - SNIPPET // 3)
    cut = text[at : at + SNIPPET]
    return ("…" if at else "") + cut + ("…" if at + SNIPPET < len(text) else "")
