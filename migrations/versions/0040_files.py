"""Files, which messages carry them, and what is to be removed from the store.

Revision ID: 0040
Revises: 0036
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0040"
down_revision: str | None = "0036"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# In the message's own transaction, so that whoever sees the message can open the file at once. For
# a message without attachments it costs the look at one column (docs/decisions/0040).
_CARRY = """
create function message_carries_files() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  if tg_op = 'UPDATE' then
    delete from message_file where client_id = old.client_id and message_id = old.id;
  end if;
  insert into message_file (file_id, message_id, client_id)
  select distinct f.id, new.id, new.client_id
  from jsonb_array_elements(new.attachments) a
  join file f on f.client_id = new.client_id and f.id = (
    case when a ->> 'file_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
      then (a ->> 'file_id')::uuid end)
  where jsonb_typeof(a) = 'object';
  return null;
end
$$
"""
_TRIGGERS = (
    """
    create trigger message_carries_files after insert on message for each row
    when (new.attachments <> '[]') execute function message_carries_files()
    """,
    """
    create trigger message_changes_files after update of attachments on message for each row
    when (new.attachments is distinct from old.attachments)
    execute function message_carries_files()
    """,
)
_LET_GO = """
create function file_let_go() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  update file set expires_at = clock_timestamp() + interval '1 day'
  where client_id = old.client_id and id = old.file_id and expires_at = 'infinity';
  return null;
end
$$
"""
# Also when the client goes with everything: its objects are in nobody's rows then.
_REMOVE = """
create function file_leaves_objects() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  insert into object_removal (key, due_at)
  select 't/' || old.client_id || '/' || noun || '/' || old.id,
    -- Until then the link may still be used.
    case when old.state = 'pending' then greatest(clock_timestamp(), old.expires_at)
      else clock_timestamp() end
  from unnest(array['incoming', 'files', 'thumbnails']) noun
  on conflict (key) do nothing;
  delete from message_file where client_id = old.client_id and file_id = old.id;
  return null;
end
$$
"""


def upgrade() -> None:
    op.create_table(
        "file",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("uploader_id", sa.UUID(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("content_type", sa.String(length=128), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("has_thumbnail", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"], ["client.id"], name=op.f("fk_file_client_id_client"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "uploader_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_file_client_id_uploader_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_file_client_id_id")),
    )
    op.create_index("ix_file_state_expires_at", "file", ["state", "expires_at"], unique=False)
    op.create_index(
        "ix_file_client_id_uploader_id", "file", ["client_id", "uploader_id"], unique=False
    )
    op.create_table(
        "message_file",
        sa.Column("file_id", sa.UUID(), nullable=False),
        sa.Column("message_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "message_id"],
            ["message.client_id", "message.id"],
            name=op.f("fk_message_file_client_id_message_id_message"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("file_id", "message_id", name=op.f("pk_message_file")),
    )
    op.create_index(
        "ix_message_file_client_id_message_id",
        "message_file",
        ["client_id", "message_id"],
        unique=False,
    )
    op.create_table(
        "object_removal",
        sa.Column("key", sa.String(length=512), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_object_removal")),
    )
    op.execute(_CARRY)
    for trigger in _TRIGGERS:
        op.execute(trigger)
    op.execute(_LET_GO)
    op.execute(
        "create trigger file_let_go after delete on message_file for each row"
        " execute function file_let_go()"
    )
    op.execute(_REMOVE)
    op.execute(
        "create trigger file_leaves_objects after delete on file for each row"
        " execute function file_leaves_objects()"
    )
    for function in ("message_carries_files()", "file_let_go()", "file_leaves_objects()"):
        op.execute(f"revoke all on function {function} from public")


def downgrade() -> None:
    op.execute("drop trigger message_changes_files on message")
    op.execute("drop trigger message_carries_files on message")
    op.drop_table("object_removal")
    op.drop_table("message_file")
    op.drop_table("file")
    for function in ("message_carries_files()", "file_let_go()", "file_leaves_objects()"):
        op.execute(f"drop function {function}")
