"""Bots, as they go over the wire."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, ExternalId, Id, Request, Timestamp, left_out

MOST_NAMED = 1000
Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Instructions: TypeAlias = Annotated[str, StringConstraints(max_length=20_000)]
ModelName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Temperature: TypeAlias = Annotated[float, Field(ge=0, le=2)]
Answers: TypeAlias = Literal["auto", "mentioned", "always"]


class RetrievalSettings(Request):
    """How a bot looks into its documents.

    `limit`: so many passages for an answer. `weight`: of meaning against words, 0 to 1.
    `answer_without_sources`: let the model answer where nothing was found. `citations`: whether
    answers carry markers. `whole_tokens`: documents of no more tokens than this are given to the
    model as a whole, instead of some passages; 0: never.
    """

    limit: Annotated[int, Field(ge=1, le=20)] = 6
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    answer_without_sources: bool = False
    citations: bool = True
    whole_tokens: Annotated[int, Field(ge=0, le=16_000)] = 8_000


class Access(Request):
    """Who may use a bot: `everyone` of the client, or the `listed` users.

    `editors` may add and remove documents, whichever `mode` it is.
    """

    mode: Literal["everyone", "listed"] = "everyone"
    user_ids: Annotated[list[ExternalId], Field(max_length=MOST_NAMED)] = []
    editors: Annotated[list[ExternalId], Field(max_length=MOST_NAMED)] = []


class CreateBot(Request):
    name: Name
    instructions: Instructions = ""
    model: ModelName | None = None
    temperature: Temperature | None = None
    retrieval: RetrievalSettings = RetrievalSettings()
    access: Access = Access()


class BotPath(Request):
    bot_id: Id


class UpdateBot(BotPath):
    """What is given replaces what was; `retrieval` and `access` whole."""

    name: Name | None = None
    instructions: Instructions | None = None
    model: ModelName | None = None
    temperature: Temperature | None = None
    retrieval: RetrievalSettings | None = None
    access: Access | None = None

    @model_validator(mode="after")
    def _no_empty_name(self) -> "UpdateBot":
        for name in ("name", "instructions", "retrieval", "access"):
            if name in self.model_fields_set and getattr(self, name) is None:
                msg = f"{name} can't be null"
                raise ValueError(msg)
        return self


class ListBots(PageRequest):
    """Which page of the bots that the caller may use."""


class BotOut(Answer):
    """A bot. `instructions` and `access` are told to the application and its editors alone."""

    id: Id
    name: str
    instructions: str | None = left_out()
    model: str | None
    temperature: float | None
    retrieval: RetrievalSettings
    access: Access | None = left_out()
    created_at: Timestamp
    updated_at: Timestamp


class DeletedBot(Answer):
    id: Id
    deleted: bool = True


class RoomBots(Request):
    room_id: Id


class RoomBotPath(Request):
    room_id: Id
    bot_id: Id


class SeatBot(RoomBotPath):
    """Make a bot a member of a room, or change how it answers there."""

    answers: Answers | None = None
    paused: bool | None = None


class RoomBotOut(Answer):
    """A bot in a room. `paused`: a human has taken over, it does not answer."""

    room_id: Id
    bot_id: Id
    name: str
    answers: Answers
    paused: bool
    added_at: Timestamp


class RoomBotList(Answer):
    items: list[RoomBotOut]


class Unseated(Answer):
    room_id: Id
    bot_id: Id
    removed: bool


def settings_of(stored: dict[str, Any]) -> RetrievalSettings:
    """Read a bot's settings; members that this version does not know are left alone."""
    known = {name: stored[name] for name in RetrievalSettings.model_fields if name in stored}
    return RetrievalSettings.model_validate(known)
