"""Searching, as callers ask and are answered."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from chatserver.chat.schemas import MessageOut
from chatserver.kernel.wire import Answer, ExternalId, Id, Request, left_out


class SearchMessages(Request):
    """Words, "phrases", beginnings*, and -what must not be there; all of it must be found."""

    q: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    room_id: Id | None = Field(default=None, description="Only in this room.")
    sender_id: ExternalId | None = Field(default=None, description="Only of this person.")
    from_: Annotated[AwareDatetime | None, Field(alias="from", strict=False)] = None
    to: Annotated[AwareDatetime | None, Field(strict=False, description="Before this moment.")] = (
        None
    )
    has_attachment: bool | None = None
    sort: Literal["relevance", "newest"] = "relevance"
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    limit: Annotated[int, Field(ge=1, le=50)] = 20


class Piece(Answer):
    """A piece of a message's text, plain; `match`: it is what was looked for."""

    text: str
    match: bool


class Hit(Answer):
    message: MessageOut
    score: float
    highlights: list[Piece] = Field(description="The best part of the text; not HTML.")


class SearchResults(Answer):
    """A page. The newest 1,000 messages that fit are ranked; the cursor goes on after them."""

    items: list[Hit]
    next_cursor: str | None = left_out()
