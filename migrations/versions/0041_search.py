"""Full text search over messages, beside the table that sends write to.

Revision ID: 0041
Revises: 0040
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0041"
down_revision: str | None = "0040"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# Beside the words stand a few lexemes that no text can have, since they begin with a control
# character: in which room it is (r), by whom (s), on which day (d) and in which span of 32 days (m)
# of its client, and whether something is attached (a). GIN then finds "this word, this room, these
# days" by merging short lists inside the index. They are shortened hashes: the columns are compared
# as well. `chatserver/search/policies.py` makes the same.
_VECTOR = """
create function message_search_vector(p_message message, p_language text) returns tsvector
language sql stable security definer
set search_path = public, pg_temp
as $$
  select to_tsvector('simple', p_message.content)
    || case when p_language = 'simple' then ''::tsvector
         else to_tsvector(p_language::regconfig, p_message.content) end
    || array_to_tsvector(array_remove(array[
      e'\\x01r' || left(md5(p_message.room_id::text), 10),
      e'\\x01d' || c || to_hex(day),
      e'\\x01m' || c || to_hex(day / 32),
      case when p_message.attachments <> '[]' then e'\\x01a' || c end,
      case when p_message.sender_id is not null
        then e'\\x01s' || left(md5(p_message.client_id::text || p_message.sender_id), 10) end
    ], null))
  from (select left(md5(p_message.client_id::text), 8) as c,
    floor(extract(epoch from p_message.created_at) / 86400)::bigint as day) x
$$
"""
# `p_kinds`: word, phrase, prefix. What consists of stop words alone is left out; null when nothing
# is left that could be looked for.
_QUERY = """
create function message_search_query(
  p_language text, p_kinds text[], p_texts text[], p_not boolean[]) returns tsquery
language plpgsql stable security definer
set search_path = public, pg_temp
as $$
declare
  v_all tsquery;
  v_one tsquery;
  v_found boolean := false;
begin
  for i in 1 .. coalesce(array_length(p_kinds, 1), 0) loop
    if p_kinds[i] = 'prefix' then
      v_one := (quote_literal(lower(p_texts[i])) || ':*')::tsquery;
    else
      v_one := phraseto_tsquery(p_language::regconfig, p_texts[i]);
    end if;
    continue when numnode(v_one) = 0;
    if p_not[i] then
      v_one := !! v_one;
    else
      v_found := true;
    end if;
    v_all := case when v_all is null then v_one else v_all && v_one end;
  end loop;
  return case when v_found then v_all end;
end
$$
"""
# What was edited, deleted or erased can't be found any more from that moment on; the indexer takes
# up what is still there a moment later.
_FORGET = """
create function message_search_forget() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  delete from message_search where message_id = new.id;
  return null;
end
$$
"""


def upgrade() -> None:
    op.create_table(
        "message_search",
        sa.Column("message_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("search", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "message_id"],
            ["message.client_id", "message.id"],
            name=op.f("fk_message_search_client_id_message_id_message"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_message_search")),
    )
    # One process writes it, in batches; nobody who searches has to read a list of what is pending.
    op.create_index(
        "ix_message_search_search",
        "message_search",
        ["search"],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.create_table(
        "search_progress",
        sa.Column("singleton", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("singleton", name=op.f("ck_search_progress_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_search_progress")),
    )
    op.execute(
        "insert into search_progress values"
        " (true, '-infinity', '00000000-0000-0000-0000-000000000000', 0)"
    )
    for function in (_VECTOR, _QUERY, _FORGET):
        op.execute(function)
    op.execute(
        "create trigger message_search_forget"
        " after update of content, deleted_at, sender_id, attachments on message for each row"
        " when (new.content is distinct from old.content"
        "   or new.deleted_at is distinct from old.deleted_at"
        "   or new.sender_id is distinct from old.sender_id"
        "   or new.attachments is distinct from old.attachments)"
        " execute function message_search_forget()"
    )
    for name in _NAMES:
        op.execute(f"revoke all on function {name} from public")


_NAMES = (
    "message_search_vector(message, text)",
    "message_search_query(text, text[], text[], boolean[])",
    "message_search_forget()",
)


def downgrade() -> None:
    op.execute("drop trigger message_search_forget on message")
    op.drop_table("search_progress")
    op.drop_table("message_search")
    for name in _NAMES:
        op.execute(f"drop function {name}")
