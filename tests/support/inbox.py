"""Puts a notification into somebody's inbox from outside of the server."""

from uuid import UUID

import asyncpg

from chatserver.kernel.ids import uuid7


async def put_in_inbox(admin_url: str, client_id: str, external_id: str, title: str) -> str:
    """Insert a row as a delivery does; nobody is shown it."""
    made = uuid7()
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(
            "insert into in_app_notification"
            " (id, client_id, user_id, delivery_id, category, title)"
            " select $1, client_id, id, $2, 'news', $3 from app_user"
            " where client_id = $4 and external_id = $5",
            made,
            uuid7(),
            title,
            UUID(client_id),
            external_id,
        )
    finally:
        await connection.close()
    return str(made)
