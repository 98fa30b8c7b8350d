"""Rules and flags as callers send and see them."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, Timestamp

Kind: TypeAlias = Literal["word", "pattern", "link", "link_unless"]
Action: TypeAlias = Literal["reject", "mask", "flag"]
Term: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Terms: TypeAlias = Annotated[list[Term], Field(min_length=1, max_length=1000)]
RoomIds: TypeAlias = Annotated[list[Id], Field(min_length=1, max_length=100)]


class CreateRule(Request):
    """What to look for in `values`, and what to do.

    `word`: words or phrases, whatever their case. `pattern`: regular expressions in RE2's syntax.
    `link`: domains, with all below them; `*` is every link. `link_unless`: the only domains that
    may be linked to. `reject` refuses the message, `mask` stores `***` in the place of what was
    found, `flag` puts the message before the moderators.
    """

    kind: Kind
    values: Terms
    action: Action
    room_ids: RoomIds | None = None
    enabled: bool = True


class UpdateRule(Request):
    """Members that are left out stay as they are; `room_ids: null` is everywhere."""

    rule_id: Id
    values: Terms | None = None
    action: Action | None = None
    room_ids: RoomIds | None = None
    enabled: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> "UpdateRule":
        if not self.model_fields_set - {"rule_id"}:
            msg = "name at least one of values, action, room_ids, enabled"
            raise ValueError(msg)
        return self


class RuleRef(Request):
    rule_id: Id


class ListRules(PageRequest):
    pass


class TryRules(Request):
    """A text to hold against the rules; nothing is stored."""

    content: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
    room_id: Id | None = None


class RuleOut(Answer):
    id: Id
    kind: str
    values: list[str]
    action: str
    room_ids: list[Id] | None
    enabled: bool
    created_at: Timestamp
    updated_at: Timestamp


class Tried(Answer):
    """What would happen: `content` is null where the message would be refused."""

    verdict: Literal["passes", "rejected", "masked", "flagged"]
    content: str | None
    rule_ids: list[Id]


class FlagMessage(Request):
    message_id: Id
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None


class ListFlags(PageRequest):
    state: Literal["open", "dismissed", "deleted"] = "open"
    room_id: Id | None = None


class ResolveFlag(Request):
    """`dismiss`: the message stays. `delete`: it becomes a tombstone."""

    flag_id: Id
    action: Literal["dismiss", "delete"]


class FlagOut(Answer):
    """A flag with its message as it is now."""

    id: Id
    message_id: Id
    room_id: Id
    flagged_by: str | None
    rule_id: Id | None
    reason: str | None
    state: str
    resolved_by: str | None
    created_at: Timestamp
    resolved_at: Timestamp | None
    message: dict[str, Any]


class Flagged(Answer):
    message_id: Id
    flagged: bool = True


class RuleDeleted(Answer):
    id: Id
    deleted: bool = True
