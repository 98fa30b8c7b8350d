"""Every query about answers within a transaction; what workers do all the time is `store.py`."""

from datetime import date
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.assistant.generation.models import Generation
from chatserver.assistant.generation.policies import ATTENDED_S
from chatserver.assistant.generation.store import RUNNING
from chatserver.chat.models import Message
from chatserver.chat.rows import MESSAGE, message_of
from chatserver.rooms.models import Room


class GenerationRepository:
    """Answers of one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def add(self, row: Message | Generation) -> None:
        self._session.add(row)

    async def flush(self) -> None:
        await self._session.flush()

    async def sent_before(
        self, room_id: UUID, sender_key: str, client_msg_id: str
    ) -> Message | None:
        """Find what this sender sent under this id."""
        found: Message | None = await self._session.scalar(
            select(Message).where(
                col(Message.room_id) == room_id,
                col(Message.sender_key) == sender_key,
                col(Message.client_msg_id) == client_msg_id,
            )
        )
        return found

    async def members_of(self, message_id: UUID, *, with_context: bool = False) -> dict[str, Any]:
        """Read a message as it stands on the wire."""
        found = await self._session.execute(
            text(f"select {MESSAGE} from message m where m.id = :id"),  # noqa: S608 - a constant
            {"id": message_id},
        )
        # A session reads JSON by itself; raw connections, for which this shape is made, do not.
        row = {
            name: orjson.dumps(value).decode() if isinstance(value, dict | list) else value
            for name, value in found.mappings().one().items()
        }
        return message_of(row, with_context=with_context)  # read by name, like a record

    async def answers_to(self, client_id: UUID, question_id: UUID) -> list[Generation]:
        found = await self._session.scalars(
            select(Generation)
            .where(
                col(Generation.client_id) == client_id, col(Generation.question_id) == question_id
            )
            .order_by(col(Generation.created_at))
        )
        return list(found)

    async def find(
        self, client_id: UUID, message_id: UUID, *, lock: bool = False
    ) -> Generation | None:
        statement = select(Generation).where(
            col(Generation.client_id) == client_id, col(Generation.message_id) == message_id
        )
        if lock:
            statement = statement.with_for_update(key_share=True)
        found: Generation | None = await self._session.scalar(
            statement, execution_options={"populate_existing": True}
        )
        return found

    async def find_message(self, client_id: UUID, message_id: UUID) -> Message | None:
        found: Message | None = await self._session.scalar(
            select(Message).where(
                col(Message.client_id) == client_id, col(Message.id) == message_id
            ),
            execution_options={"populate_existing": True},
        )
        return found

    async def running_in(self, client_id: UUID, room_id: UUID | None = None) -> list[Generation]:
        """Give answers under way, in a room or of the whole client; up to 1,000."""
        where = [col(Generation.client_id) == client_id, col(Generation.status).in_(RUNNING)]
        if room_id is not None:
            where.append(col(Generation.room_id) == room_id)
        found = await self._session.scalars(select(Generation).where(*where).limit(1000))
        return list(found)

    async def count_running(self, client_id: UUID, at_most: int) -> int:
        inner = (
            select(col(Generation.message_id))
            .where(col(Generation.client_id) == client_id, col(Generation.status).in_(RUNNING))
            .limit(at_most)
        )
        return int(
            await self._session.scalar(select(func.count()).select_from(inner.subquery())) or 0
        )

    async def spoken(self, room_id: UUID, *, seq: int, msg_no: int, user_id: UUID | None) -> None:
        """Count messages in their room; its sender has read up to his own."""
        await self._session.execute(
            text(
                "update room set msg_no = :msg_no, last_activity_at = clock_timestamp(),"
                " deactivates_at = null where id = :room"
            ),
            {"room": room_id, "msg_no": msg_no},
        )
        if user_id is not None:
            await self._session.execute(
                text(
                    "update member set read_seq = :seq, read_msg_no = :no"
                    " where room_id = :room and user_id = :user"
                ),
                {"seq": seq, "no": msg_no, "room": room_id, "user": user_id},
            )

    async def lock_room(self, client_id: UUID, room_id: UUID) -> Room | None:
        """Lock a room, as every write of a message does first."""
        found: Room | None = await self._session.scalar(
            select(Room)
            .where(
                col(Room.client_id) == client_id,
                col(Room.id) == room_id,
                col(Room.deleted_at).is_(None),
            )
            .with_for_update(key_share=True),
            execution_options={"populate_existing": True},
        )
        return found

    async def is_attended(self, room: Room, *, asked_by: str) -> bool:
        """Tell whether a human looks after a support room, or the asker is one of those."""
        found = await self._session.execute(
            text(_ATTENDED),
            {
                "room": room.id,
                "customer": room.created_by,
                "asked_by": asked_by,
                "within": ATTENDED_S,
                "handed_back_at": room.handed_back_at,
            },
        )
        return bool(found.scalar_one())

    async def request_cancel(self, row: Generation) -> None:
        await self._session.execute(
            update(Generation)
            .where(col(Generation.message_id) == row.message_id)
            .values(cancel_requested_at=func.clock_timestamp())
        )

    async def reopen(self, row: Generation) -> None:
        """Let an ended answer wait for a worker again; its number goes on."""
        await self._session.execute(
            update(Generation)
            .where(col(Generation.message_id) == row.message_id)
            .values(
                status="pending",
                attempt=0,
                started_at=None,
                ended_at=None,
                error_code=None,
                cancel_requested_at=None,
            )
        )
        await self._session.execute(
            update(Message)
            .where(col(Message.client_id) == row.client_id, col(Message.id) == row.message_id)
            .values(status="pending", error_message=None)
        )

    async def end(
        self, row: Generation, *, status: str, error_code: str | None, index: int
    ) -> None:
        await self._session.execute(
            update(Generation)
            .where(col(Generation.message_id) == row.message_id)
            .values(
                status=status,
                error_code=error_code,
                partial_index=index,
                ended_at=func.clock_timestamp(),
            )
        )

    async def count_usage(self, values: dict[str, Any]) -> None:
        """Add what an answer used to its client's, bot's and day's."""
        await self._session.execute(text(_COUNT_USAGE), values)

    async def usage(
        self, client_id: UUID, *, first: date, last: date, bot_id: UUID | None
    ) -> list[dict[str, Any]]:
        found = await self._session.execute(
            text(_USAGE), {"client": client_id, "first": first, "last": last, "bot": bot_id}
        )
        return [dict(row) for row in found.mappings()]


# The customer is who made the room, or who wrote first in it. What others wrote before the room was
# given back holds its bot no longer.
_ATTENDED: Final = """
with customer as (
  select coalesce(cast(:customer as text), (
    select sender_id from message
    where room_id = :room and seq > 0 and sender = 'user' order by seq limit 1)) as name)
select customer.name is distinct from :asked_by or exists (
  select from (
    select sender, sender_id, created_at from message
    where room_id = :room and seq > 0 order by seq desc limit 50) late
  where late.sender = 'user' and late.sender_id <> customer.name
    and late.created_at > greatest(cast(:handed_back_at as timestamptz),
      clock_timestamp() - make_interval(secs => :within)))
from customer
"""
_COUNT_USAGE: Final = """
insert into ai_usage as u
  (client_id, bot_id, day, model, answers, prompt_tokens, completion_tokens, cost_micros)
values (:client_id, :bot_id, (clock_timestamp() at time zone 'utc')::date, :model, 1,
  :prompt_tokens, :completion_tokens, :cost_micros)
on conflict (client_id, bot_id, day, model) do update set
  answers = u.answers + 1, prompt_tokens = u.prompt_tokens + excluded.prompt_tokens,
  completion_tokens = u.completion_tokens + excluded.completion_tokens,
  cost_micros = u.cost_micros + excluded.cost_micros
"""
_USAGE: Final = """
select bot_id, day, model, answers, prompt_tokens, completion_tokens, cost_micros from ai_usage
where client_id = :client and day between :first and :last
  and (cast(:bot as uuid) is null or bot_id = :bot)
order by day, bot_id, model limit 10000
"""
