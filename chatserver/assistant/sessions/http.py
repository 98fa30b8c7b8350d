"""REST for sessions."""

from typing import Final

from chatserver.assistant.generation.errors import (
    AnswerNotFoundError,
    NothingToResumeError,
    SourcesGoneError,
)
from chatserver.assistant.generation.following import Follower
from chatserver.assistant.generation.schemas import AnswerState
from chatserver.assistant.generation.sockets import ASK_ERRORS
from chatserver.assistant.sessions.errors import SessionNotFoundError
from chatserver.assistant.sessions.schemas import (
    CreateSession,
    DeletedSession,
    ExportedSession,
    FoundMessage,
    ImportedSession,
    ImportSession,
    ListSessionMessages,
    ListSessions,
    SaidOut,
    SayInSession,
    SearchSessions,
    SessionOut,
    SessionPath,
    UpdateSession,
)
from chatserver.assistant.sessions.service import SessionService
from chatserver.chat.schemas import ListMessages, Messages
from chatserver.chat.service import ChatService
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import RoleMissingError
from chatserver.transport.registry import Route, operation
from chatserver.users.errors import UserNotFoundError

_USE: Final = Scope.ASSISTANT_USE
_SEEN: Final = (SessionNotFoundError,)


class SessionsHttp:
    def __init__(
        self, sessions: Open[SessionService], chat: ChatService, follower: Follower
    ) -> None:
        self._sessions = sessions
        self._chat = chat
        self._follower = follower

    @operation(
        "session.create",
        CreateSession,
        SessionOut,
        scope=_USE,
        errors=(UserNotFoundError, *ASK_ERRORS),
    )
    async def create(self, principal: Principal, request: CreateSession) -> SessionOut:
        """Make a session: a conversation with one bot."""
        async with self._sessions() as sessions:
            return await sessions.create(principal, request)

    @operation(
        "session.list", ListSessions, Page[SessionOut], scope=_USE, errors=(UserNotFoundError,)
    )
    async def page(self, principal: Principal, request: ListSessions) -> Page[SessionOut]:
        """List sessions, favourites first, then the liveliest."""
        async with self._sessions() as sessions:
            return await sessions.find_page(principal, request)

    @operation(
        "session.search",
        SearchSessions,
        Page[FoundMessage],
        scope=_USE,
        errors=(UserNotFoundError,),
    )
    async def search(self, principal: Principal, request: SearchSessions) -> Page[FoundMessage]:
        """Find messages in one's sessions, the latest first."""
        async with self._sessions() as sessions:
            return await sessions.search(principal, request)

    @operation("session.get", SessionPath, SessionOut, scope=_USE, errors=_SEEN)
    async def get(self, principal: Principal, request: SessionPath) -> SessionOut:
        """Read a session."""
        async with self._sessions() as sessions:
            return await sessions.get(principal, request)

    @operation(
        "session.update", UpdateSession, SessionOut, scope=_USE, errors=(*_SEEN, RoleMissingError)
    )
    async def update(self, principal: Principal, request: UpdateSession) -> SessionOut:
        """Rename a session, or make it a favourite or none."""
        async with self._sessions() as sessions:
            return await sessions.update(principal, request)

    @operation("session.favorite", SessionPath, SessionOut, scope=_USE, errors=_SEEN)
    async def favorite(self, principal: Principal, request: SessionPath) -> SessionOut:
        """Toggle whether a session is a favourite."""
        async with self._sessions() as sessions:
            return await sessions.toggle_favorite(principal, request)

    @operation(
        "session.delete",
        SessionPath,
        DeletedSession,
        scope=_USE,
        errors=(*_SEEN, RoleMissingError),
    )
    async def delete(self, principal: Principal, request: SessionPath) -> DeletedSession:
        """Delete a session and all that was said in it."""
        async with self._sessions() as sessions:
            return await sessions.delete(principal, request)

    @operation("session.messages", ListSessionMessages, Messages, scope=_USE, errors=_SEEN)
    async def messages(self, principal: Principal, request: ListSessionMessages) -> Messages:
        """Read a session's messages in seq order, answers with their context."""
        async with self._sessions() as sessions:
            found = await sessions.get(principal, SessionPath(session_id=request.session_id))
        return await self._chat.list(
            principal,
            ListMessages(
                room_id=found.id,
                after_seq=request.after_seq,
                before_seq=request.before_seq,
                limit=request.limit,
            ),
        )

    @operation("session.message", SayInSession, SaidOut, scope=_USE, errors=(*_SEEN, *ASK_ERRORS))
    async def say(self, principal: Principal, request: SayInSession) -> SaidOut:
        """Say something in a session, and let its bot answer.

        202 with the question and the answer's `message_id`; with `Accept: text/event-stream` the
        answer itself follows. `generate: false` only stores. `sender: ai` stores an answer that was
        made elsewhere, with its context.
        """
        async with self._sessions() as sessions:
            return await sessions.say(principal, request)

    @operation(
        "session.resume",
        SessionPath,
        AnswerState,
        scope=_USE,
        errors=(*_SEEN, AnswerNotFoundError, NothingToResumeError, SourcesGoneError, *ASK_ERRORS),
    )
    async def resume(self, principal: Principal, request: SessionPath) -> AnswerState:
        """Let the session's last answer go on from what there is of it."""
        async with self._sessions() as sessions:
            return await sessions.resume(principal, request)

    @operation(
        "session.cancel", SessionPath, AnswerState, scope=_USE, errors=(*_SEEN, AnswerNotFoundError)
    )
    async def cancel(self, principal: Principal, request: SessionPath) -> AnswerState:
        """End the answer that is being written in a session."""
        async with self._sessions() as sessions:
            state = await sessions.cancel(principal, request)
        await self._follower.tell_cancelled(principal, state.message_id)
        return state

    @operation("session.export", SessionPath, ExportedSession, scope=_USE, errors=_SEEN)
    async def export(self, principal: Principal, request: SessionPath) -> ExportedSession:
        """Export a session with its latest 500 messages."""
        async with self._sessions() as sessions:
            return await sessions.export(principal, request)

    @operation(
        "session.import",
        ImportSession,
        ImportedSession,
        scope=_USE,
        errors=(UserNotFoundError, *ASK_ERRORS),
    )
    async def take_in(self, principal: Principal, request: ImportSession) -> ImportedSession:
        """Make a session of an export. The same one again gives the session that there is."""
        async with self._sessions() as sessions:
            return await sessions.take_in(principal, request)


_SESSION: Final = "/sessions/{session_id}"
ROUTES: Final = (
    Route(method="POST", path="/sessions", operation="session.create", status=201),
    Route(method="GET", path="/sessions", operation="session.list"),
    Route(method="GET", path="/sessions/search", operation="session.search"),
    Route(method="POST", path="/sessions/import", operation="session.import", status=201),
    Route(method="GET", path=_SESSION, operation="session.get"),
    Route(method="PUT", path=_SESSION, operation="session.update"),
    Route(method="PATCH", path=_SESSION, operation="session.update"),
    Route(method="DELETE", path=_SESSION, operation="session.delete"),
    Route(method="PATCH", path=_SESSION + "/favorite", operation="session.favorite"),
    Route(method="GET", path=_SESSION + "/messages", operation="session.messages"),
    Route(method="POST", path=_SESSION + "/messages", operation="session.message", status=202),
    Route(method="POST", path=_SESSION + "/resume", operation="session.resume", status=202),
    Route(method="POST", path=_SESSION + "/cancel", operation="session.cancel"),
    Route(method="GET", path=_SESSION + "/export", operation="session.export"),
)
