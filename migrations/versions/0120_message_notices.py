"""Rooms whose messages may concern somebody who is not there, and what inboxes say of them.

Revision ID: 0120
Revises: 0112
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0120"
down_revision: str | None = "0112"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# One open row a room, whatever is said meanwhile: made by the first message that may concern
# somebody, in its own transaction and under its room's lock. All other sends pay for the look at
# two columns (docs/decisions/0087). An import says that it is one: nobody is told of old messages.
_NOTE = """
create function message_noticed() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  if coalesce(current_setting('chatserver.importing', true), '') <> 'on' then
    insert into message_notice (client_id, room_id, from_seq, due_at)
    values (new.client_id, {room}, {seq}, clock_timestamp() + interval '3 seconds')
    on conflict (room_id) where upto_seq is null do nothing;
  end if;
  return null;
end
$$
"""
_TRIGGERS = (
    """
    create trigger message_noticed after insert on message for each row
    when (new.mentions <> '[]' and not new.silent) execute function message_noticed()
    """,
    """
    create trigger room_noticed after update of msg_no on room for each row
    when (new.msg_no > old.msg_no and (new.type = 'direct' or new.is_loud))
    execute function room_noticed()
    """,
)
_LOUD = """
update room r set is_loud = true
where exists (select from member m where m.room_id = r.id and m.notification_level = 'all')
"""


def upgrade() -> None:
    op.add_column(
        "room", sa.Column("is_loud", sa.Boolean(), server_default="false", nullable=False)
    )
    op.execute(_LOUD)
    op.create_table(
        "message_notice",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("upto_seq", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("is_second", sa.Boolean(), server_default="false", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_notice")),
    )
    op.create_index("ix_message_notice_due_at", "message_notice", ["due_at"])
    op.create_index(
        "uq_message_notice_open",
        "message_notice",
        ["room_id"],
        unique=True,
        postgresql_where=sa.text("upto_seq is null"),
    )
    for column in (
        sa.Column("room_id", sa.UUID(), nullable=True),
        sa.Column("message_id", sa.UUID(), nullable=True),
        sa.Column("upto_seq", sa.BigInteger(), nullable=True),
    ):
        op.add_column("in_app_notification", column)
    op.create_index(
        "uq_in_app_notification_room",
        "in_app_notification",
        ["room_id", "user_id"],
        unique=True,
        postgresql_where=sa.text("room_id is not null and read_at is null"),
    )
    op.create_index(
        "ix_in_app_notification_user_id_room_id",
        "in_app_notification",
        ["user_id", "room_id", "upto_seq"],
        postgresql_where=sa.text("room_id is not null"),
    )
    op.execute(_NOTE.format(room="new.room_id", seq="new.seq"))
    op.execute(
        _NOTE.replace("message_noticed", "room_noticed").format(
            room="new.id", seq="old.last_seq + 1"
        )
    )
    for trigger in _TRIGGERS:
        op.execute(trigger)
    for function in ("message_noticed()", "room_noticed()"):
        op.execute(f"revoke all on function {function} from public")


def downgrade() -> None:
    op.execute("drop trigger message_noticed on message")
    op.execute("drop trigger room_noticed on room")
    op.execute("drop function message_noticed()")
    op.execute("drop function room_noticed()")
    op.drop_index("ix_in_app_notification_user_id_room_id", table_name="in_app_notification")
    op.drop_index("uq_in_app_notification_room", table_name="in_app_notification")
    # Without what they are about, those of messages say nothing.
    op.execute("delete from in_app_notification where room_id is not null")
    for column in ("upto_seq", "message_id", "room_id"):
        op.drop_column("in_app_notification", column)
    op.drop_table("message_notice")
    op.drop_column("room", "is_loud")
