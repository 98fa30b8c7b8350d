"""Sessions: an assistant's conversations as their owner sees them."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from chatserver.chat.schemas import ClientMsgId, MessageOut, Seq
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import (
    Answer,
    ExternalId,
    Followed,
    Id,
    Request,
    Timestamp,
    left_out,
)
from chatserver.rooms.schemas import Title

Words = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Context = Annotated[dict[str, Any], Field(max_length=64)]
MOST_IMPORTED = 500


class CreateSession(Request):
    """A master key names whose it is with `user_id`. Without `bot_id` the user's first bot."""

    user_id: ExternalId | None = None
    title: Title | None = None
    bot_id: Id | None = None


class SessionPath(Request):
    session_id: Id


class ListSessions(PageRequest):
    """Favourites first, then the liveliest; `q` stands in the title or in a message.

    A master key sees all sessions, or those of `user_id`.
    """

    user_id: ExternalId | None = None
    q: Words | None = None


class SearchSessions(PageRequest):
    user_id: ExternalId | None = None
    q: Words | None = None


class UpdateSession(SessionPath):
    title: Title | None = None
    is_favorite: bool | None = None


class ListSessionMessages(SessionPath):
    """`after_seq` reads forward, `before_seq` backward; neither: the newest."""

    after_seq: Seq | None = None
    before_seq: Seq | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class SayInSession(SessionPath):
    """A message of the user, which the bot answers unless `generate` is false.

    With `sender: ai` an answer that was made elsewhere is stored, with its `context`.
    """

    sender: Literal["user", "ai"] = "user"
    content: Annotated[str, Field(min_length=1)]
    context: Context | None = None
    generate: bool | None = None
    client_msg_id: ClientMsgId | None = None


class SessionOut(Answer):
    """A session; its id is its room's."""

    id: Id
    user_id: str
    title: str | None
    is_favorite: bool
    bot_id: Id | None
    is_active: bool
    messages_count: int
    last_activity_at: Timestamp
    created_at: Timestamp


class SaidOut(Followed):
    """The stored message; `message_id` is that of the answer, when one is being written."""

    message: MessageOut
    message_id: Id | None = left_out()

    @property
    def goes_on(self) -> bool:
        return self.message_id is not None


class DeletedSession(Answer):
    id: Id
    deleted: bool = True


class FoundMessage(Answer):
    session_id: Id
    session_title: str | None
    message_id: Id
    seq: int
    sender: str
    text: str
    created_at: Timestamp


class PortableMessage(Request):
    """A message as exports hold it."""

    sender: Literal["user", "ai"]
    content: Annotated[str, Field(max_length=20_000)]
    context: Context | None = None
    created_at: str | None = None
    id: Id | None = None


class PortableSession(Request):
    id: Id | None = None
    title: Title | None = None
    is_favorite: bool = False
    created_at: str | None = None


class ImportSession(Request):
    """What an export gave. Importing the same one again gives the session that there is."""

    version: Literal[1] = 1
    session: PortableSession = PortableSession()
    messages: Annotated[list[PortableMessage], Field(max_length=MOST_IMPORTED)] = []
    user_id: ExternalId | None = None
    bot_id: Id | None = None


class ExportedSession(Answer):
    """A session and its latest 500 messages, as `POST /sessions/import` takes them."""

    version: int
    session: dict[str, Any]
    messages: list[dict[str, Any]]


class ImportedSession(SessionOut):
    imported: bool

    @property
    def is_repeat(self) -> bool:
        return not self.imported
