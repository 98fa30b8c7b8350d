"""Every query about rules and flags."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.infra.database import ACQUIRE_S, Database, outages
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import EXACT_TOTAL
from chatserver.moderation.models import Flag, ModerationRule

_ENABLED: Final = (
    "select id, kind, terms, action, room_ids from moderation_rule"
    " where client_id = $1 and enabled order by id"
)
_FLAG: Final = (
    "insert into flag (id, client_id, room_id, message_id, source, rule_id, state)"
    " select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::uuid[],"
    "   $7::text[])"
    " on conflict (message_id, source) do nothing"
)
# A message that was never stored has no row, so its flag is not shown.
_FLAGS: Final = """
from flag f join message m on m.id = f.message_id and m.client_id = f.client_id
where f.client_id = :client and f.state = :state
  and (cast(:room as uuid) is null or f.room_id = :room)
  and (cast(:member as uuid) is null or exists (
    select from member x where x.room_id = f.room_id and x.user_id = :member
      and x.role in ('moderator', 'admin', 'owner')))
"""


class RuleLookup:
    """Reads a client's rules, for whoever sends: outside of any transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enabled(self, client_id: UUID) -> list[Any]:
        """Give the rules that are on, the oldest first.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                return list(await (await self._database.fast()).fetch(_ENABLED, client_id))

    async def flag(
        self, client_id: UUID, room_id: UUID, message_id: UUID, rules: Sequence[UUID]
    ) -> None:
        """Flag a message in the name of rules; each does it once.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        count = len(rules)
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                await (await self._database.fast()).execute(
                    _FLAG,
                    [uuid7() for _ in rules],
                    [client_id] * count,
                    [room_id] * count,
                    [message_id] * count,
                    [f"rule:{rule}" for rule in rules],
                    list(rules),
                    ["open"] * count,
                )


class ModerationRepository:
    """Rules and flags of one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, rule: ModerationRule) -> None:
        self._session.add(rule)
        await self.flush(rule)

    async def flush(self, row: ModerationRule | Flag) -> None:
        await self._session.flush()
        await self._session.refresh(row)

    async def touch(self, rule: ModerationRule) -> None:
        """Write what changed of a rule, and when."""
        rule.updated_at = await self._session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]  # never null
        await self.flush(rule)

    async def claim(self, client_id: UUID) -> None:
        """Serialise whoever makes rules of a client until the transaction ends."""
        await self._session.execute(
            text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"moderation:{client_id}"},
        )

    async def count(self, client_id: UUID) -> int:
        return int(
            await self._session.scalar(
                select(func.count()).where(col(ModerationRule.client_id) == client_id)
            )
            or 0
        )

    async def find(self, client_id: UUID, rule_id: UUID) -> ModerationRule | None:
        found: ModerationRule | None = await self._session.scalar(
            select(ModerationRule)
            .where(col(ModerationRule.client_id) == client_id, col(ModerationRule.id) == rule_id)
            .with_for_update()
        )
        return found

    async def delete(self, rule: ModerationRule) -> None:
        await self._session.delete(rule)
        await self._session.flush()

    async def rules(
        self, client_id: UUID, *, offset: int, limit: int
    ) -> tuple[Sequence[ModerationRule], int]:
        rows = await self._session.scalars(
            select(ModerationRule)
            .where(col(ModerationRule.client_id) == client_id)
            .order_by(col(ModerationRule.id))
            .offset(offset)
            .limit(limit)
        )
        return rows.all(), await self.count(client_id)

    async def flag(self, flag: Flag) -> None:
        """Store a flag; who flagged this message before is told nothing new."""
        await self._session.execute(
            text(
                "insert into flag (id, client_id, room_id, message_id, source, flagged_by, reason,"
                " state) values (:id, :client, :room, :message, :source, :by, :reason, 'open')"
                " on conflict (message_id, source) do nothing"
            ),
            {
                "id": flag.id,
                "client": flag.client_id,
                "room": flag.room_id,
                "message": flag.message_id,
                "source": flag.source,
                "by": flag.flagged_by,
                "reason": flag.reason,
            },
        )

    async def flags(
        self,
        client_id: UUID,
        *,
        state: str,
        room_id: UUID | None,
        member: UUID | None,
        offset: int,
        limit: int,
    ) -> tuple[Sequence[Any], int]:
        """Read flags with their messages, the oldest first, and how many there are.

        `member`: a moderator, who sees those of his rooms; without, all of the client's.
        """
        values = {"client": client_id, "state": state, "room": room_id, "member": member}
        rows = await self._session.execute(
            text(
                "select f.*, m.seq, m.sender, m.sender_id, m.content, m.deleted_at,"
                " m.created_at as sent_at"
                f" {_FLAGS} order by f.created_at, f.id offset :offset limit :limit"
            ),
            {**values, "offset": offset, "limit": limit},
        )
        counted = await self._session.scalar(
            text(f"select count(*) from (select {_FLAGS} limit {EXACT_TOTAL + 1}) c"),  # noqa: S608 - constants of this file
            values,
        )
        return rows.all(), int(counted or 0)

    async def find_flag(self, client_id: UUID, flag_id: UUID) -> Flag | None:
        found: Flag | None = await self._session.scalar(
            select(Flag).where(col(Flag.client_id) == client_id, col(Flag.id) == flag_id)
        )
        return found

    async def resolve(self, flag: Flag, state: str, by: str | None) -> None:
        """End every open flag of a flag's message, in the same way."""
        await self._session.execute(
            text(
                "update flag set state = :state, resolved_by = :by,"
                " resolved_at = clock_timestamp()"
                " where client_id = :client and message_id = :message and state = 'open'"
            ),
            {
                "state": state,
                "by": by,
                "client": flag.client_id,
                "message": flag.message_id,
            },
        )
