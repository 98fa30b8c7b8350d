"""What one can do about unwelcome texts: set rules, try them, flag messages, settle flags."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from chatserver.chat.schemas import MessageOut, MessageRef
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.moderation import policies
from chatserver.moderation.errors import (
    FlagNotFoundError,
    RuleNotFoundError,
    TooManyRulesError,
)
from chatserver.moderation.models import Flag, ModerationRule
from chatserver.moderation.policies import Rule
from chatserver.moderation.repository import ModerationRepository
from chatserver.moderation.schemas import (
    CreateRule,
    Flagged,
    FlagMessage,
    FlagOut,
    ListFlags,
    ListRules,
    ResolveFlag,
    RuleDeleted,
    RuleOut,
    RuleRef,
    Tried,
    TryRules,
    UpdateRule,
)
from chatserver.rooms.errors import NotARoomMemberError, RoleMissingError, RoomNotFoundError


class RuleService:
    """A client's rules, of one transaction."""

    def __init__(
        self,
        *,
        rules: ModerationRepository,
        recorder: Recorder,
        changed: Callable[[], None],
    ) -> None:
        self._rules = rules
        self._recorder = recorder
        self._changed = changed

    async def create(self, principal: Principal, command: CreateRule) -> RuleOut:
        """Make a rule. It holds for what is sent from now on, on other nodes within 5 s."""
        _require_usable(command.kind, command.values)
        await self._rules.claim(principal.client_id)
        if await self._rules.count(principal.client_id) >= policies.RULES_PER_CLIENT:
            raise TooManyRulesError(max=policies.RULES_PER_CLIENT)
        rule = ModerationRule(
            id=uuid7(),
            client_id=principal.client_id,
            kind=command.kind,
            values=command.values,
            action=command.action,
            room_ids=command.room_ids,
            enabled=command.enabled,
        )
        await self._rules.add(rule)
        self._note(principal, "moderation.rule_create", rule.id)
        return _rule_out(rule)

    async def list(self, principal: Principal, command: ListRules) -> Page[RuleOut]:
        rows, counted = await self._rules.rules(
            principal.client_id, offset=command.offset, limit=command.size
        )
        return Page[RuleOut].of([_rule_out(row) for row in rows], command, counted)

    async def update(self, principal: Principal, command: UpdateRule) -> RuleOut:
        rule = await self._find(principal, command.rule_id)
        if command.values is not None:
            _require_usable(rule.kind, command.values)
            rule.values = command.values
        if command.action is not None:
            rule.action = command.action
        if "room_ids" in command.model_fields_set:
            rule.room_ids = command.room_ids
        if command.enabled is not None:
            rule.enabled = command.enabled
        await self._rules.touch(rule)
        self._note(principal, "moderation.rule_update", rule.id)
        return _rule_out(rule)

    async def delete(self, principal: Principal, command: RuleRef) -> RuleDeleted:
        rule = await self._find(principal, command.rule_id)
        await self._rules.delete(rule)
        self._note(principal, "moderation.rule_delete", rule.id)
        return RuleDeleted(id=rule.id)

    async def attempt(self, principal: Principal, command: TryRules) -> Tried:
        """Say what the rules that are on would make of a text."""
        rows, _ = await self._rules.rules(
            principal.client_id, offset=0, limit=policies.RULES_PER_CLIENT
        )
        rules = [
            Rule(
                row.id,
                row.action,
                None if row.room_ids is None else frozenset(row.room_ids),
                policies.compile_rule(row.kind, row.values),
            )
            for row in rows
            if row.enabled
        ]
        verdict = policies.judge(command.content, command.room_id, rules)
        if verdict.rejected_by is not None:
            return Tried(verdict="rejected", content=None, rule_ids=[verdict.rejected_by])
        if verdict.flagged_by:
            by = [*verdict.masked_by, *verdict.flagged_by]
            return Tried(verdict="flagged", content=verdict.content, rule_ids=by)
        if verdict.masked_by:
            by = list(verdict.masked_by)
            return Tried(verdict="masked", content=verdict.content, rule_ids=by)
        return Tried(verdict="passes", content=verdict.content, rule_ids=[])

    async def _find(self, principal: Principal, rule_id: UUID) -> ModerationRule:
        rule = await self._rules.find(principal.client_id, rule_id)
        if rule is None:
            raise RuleNotFoundError
        return rule

    def _note(self, principal: Principal, action: str, rule_id: UUID) -> None:
        self._recorder.audit(principal.client_id, principal, action, f"moderation_rule:{rule_id}")
        self._recorder.after_commit(self._changed)


class Messages(Protocol):
    """What flags need of the conversation."""

    async def get(self, principal: Principal, command: MessageRef) -> MessageOut:
        """Read a message that the caller may read, else raise `message.not_found`."""
        ...


class Rooms(Protocol):
    """What flags need of the rooms."""

    async def locked(self, principal: Principal, room_id: UUID, *, needed: str) -> Any:  # noqa: ANN401
        """Lock a room for a change that takes a role."""
        ...


class FlagService:
    """Flags. Deleting the message is the conversation's own transaction, before the flag's."""

    def __init__(
        self,
        *,
        open_flags: Open[ModerationRepository],
        open_rooms: Open[Rooms],
        messages: Messages,
        delete: Callable[[Principal, MessageRef], Awaitable[object]],
    ) -> None:
        self._open_flags = open_flags
        self._open_rooms = open_rooms
        self._messages = messages
        self._delete = delete

    async def flag(self, principal: Principal, command: FlagMessage) -> Flagged:
        """Put a message before the moderators; saying it again changes nothing.

        Raises:
            MessageNotFoundError
        """
        message = await self._messages.get(principal, MessageRef(message_id=command.message_id))
        async with self._open_flags() as flags:
            await flags.flag(
                Flag(
                    id=uuid7(),
                    client_id=principal.client_id,
                    room_id=UUID(str(message.room_id)),
                    message_id=command.message_id,
                    source=f"user:{principal.user_id}" if principal.is_user else "client",
                    flagged_by=principal.external_id or None,
                    reason=command.reason,
                )
            )
        return Flagged(message_id=command.message_id)

    async def list(self, principal: Principal, command: ListFlags) -> Page[FlagOut]:
        """Show flags: a moderator those of the rooms that he moderates, the application all."""
        async with self._open_flags() as flags:
            rows, counted = await flags.flags(
                principal.client_id,
                state=command.state,
                room_id=command.room_id,
                member=principal.user_id if principal.is_user else None,
                offset=command.offset,
                limit=command.size,
            )
        return Page[FlagOut].of([_flag_out(row) for row in rows], command, counted)

    async def resolve(self, principal: Principal, command: ResolveFlag) -> Flagged:
        """Settle a flag, and with it every other one of its message.

        Raises:
            FlagNotFoundError: unknown, another client's, or of a room that the caller does not
                moderate.
        """
        async with self._open_flags() as flags:
            flag = await flags.find_flag(principal.client_id, command.flag_id)
        if flag is None:
            raise FlagNotFoundError
        try:
            async with self._open_rooms() as rooms:
                await rooms.locked(principal, flag.room_id, needed="moderator")
        except (RoomNotFoundError, NotARoomMemberError, RoleMissingError) as error:
            raise FlagNotFoundError from error
        if command.action == "delete":
            # First: whoever dies in between leaves an open flag, which can be settled again.
            await self._delete(principal, MessageRef(message_id=flag.message_id))
        state = "deleted" if command.action == "delete" else "dismissed"
        async with self._open_flags() as flags:
            await flags.resolve(flag, state, principal.external_id or None)
        return Flagged(message_id=flag.message_id, flagged=False)


def _require_usable(kind: str, values: Sequence[str]) -> None:
    # One by one as well: of a thousand words it says which.
    places = [(f"values.{place}", [value]) for place, value in enumerate(values)]
    for field, some in (*places, ("values", values)):
        try:
            policies.compile_rule(kind, some)
        except ValueError as error:
            raise PayloadInvalidError.of(field, str(error)) from error


def _rule_out(rule: ModerationRule) -> RuleOut:
    return RuleOut(
        id=rule.id,
        kind=rule.kind,
        values=rule.values,
        action=rule.action,
        room_ids=rule.room_ids,
        enabled=rule.enabled,
        created_at=rule.created_at,
        updated_at=rule.updated_at,
    )


def _flag_out(row: Any) -> FlagOut:  # noqa: ANN401 - a row
    return FlagOut(
        id=row.id,
        message_id=row.message_id,
        room_id=row.room_id,
        flagged_by=row.flagged_by,
        rule_id=row.rule_id,
        reason=row.reason,
        state=row.state,
        resolved_by=row.resolved_by,
        created_at=row.created_at,
        resolved_at=row.resolved_at,
        message={
            "id": str(row.message_id),
            "seq": row.seq,
            "sender": row.sender,
            "sender_id": row.sender_id,
            "content": row.content,
            "created_at": rfc3339(row.sent_at),
            "deleted_at": None if row.deleted_at is None else rfc3339(row.deleted_at),
        },
    )
