"""What is kept of how a person is reached, for the person's own copy: without tokens."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

PAGE: Final = 500

_PREFERENCES: Final = text("""
select category, channel, enabled, updated_at from preference
where client_id = :client and user_id = :user order by category, channel
""")
_DEVICES: Final = text("""
select id, kind, created_at, last_seen_at from push_device
where client_id = :client and user_id = :user order by id
""")
_NOTIFICATIONS: Final = text("""
select id, category, title, body, data, room_id, message_id, created_at, acked_at, read_at
from in_app_notification
where client_id = :client and user_id = :user and id > :after order by id limit :limit
""")
# What still waits to be sent finds no address and ends by itself. An attempt says to which address
# of the person's own it went, where the channel is a webhook.
_DELIVERIES: Final = text("""
with gone as (
  update notification_delivery set person = null, address = null, address_hash = null
  where client_id = :client and person = :name returning delivery_id
), tried as (
  update delivery_attempt a set url = null, response = null
  from gone where a.delivery_id = gone.delivery_id
    and (a.url is not null or a.response is not null)
)
select count(*) from gone
""")
_SENT: Final = text("""
select p.delivery_id as id, p.notification_id, p.channel, d.state, d.reason, d.created_at,
  d.settled_at
from notification_delivery p join delivery d on d.id = p.delivery_id
where p.client_id = :client and p.person = :name and p.delivery_id > :after
order by p.delivery_id limit :limit
""")
_KINDS: Final[Sequence[tuple[str, TextClause]]] = (
    ("preference", _PREFERENCES),
    ("device", _DEVICES),
)


async def choices(
    session: AsyncSession, client_id: UUID, user_id: UUID
) -> list[tuple[str, dict[str, Any]]]:
    """Read preferences and devices, each with the kind of its line."""
    lines: list[tuple[str, dict[str, Any]]] = []
    for kind, statement in _KINDS:
        found = await session.execute(statement, {"client": client_id, "user": user_id})
        lines += [(kind, dict(row)) for row in found.mappings()]
    return lines


async def notifications(
    session: AsyncSession, client_id: UUID, user_id: UUID, after: UUID
) -> list[dict[str, Any]]:
    """Read a page of in-app notifications, the oldest first."""
    found = await session.execute(
        _NOTIFICATIONS, {"client": client_id, "user": user_id, "after": after, "limit": PAGE}
    )
    return [dict(row) for row in found.mappings()]


async def forget_deliveries(session: AsyncSession, client_id: UUID, name: str) -> int:
    """Take a person and the addresses used for the person out of deliveries; how many."""
    done = await session.execute(_DELIVERIES, {"client": client_id, "name": name})
    return int(done.scalar_one())


async def deliveries(
    session: AsyncSession, client_id: UUID, name: str, after: UUID
) -> list[dict[str, Any]]:
    """Read a page of what was sent to a person by any channel, the oldest first."""
    values = {"client": client_id, "name": name, "after": after, "limit": PAGE}
    found = await session.execute(_SENT, values)
    return [dict(row) for row in found.mappings()]
