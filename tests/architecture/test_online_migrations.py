"""Migrations run beside a server that works: none may stop senders for long."""

import pytest

from tests.architecture.online import faults
from tests.architecture.tree import ROOT

# What came before was never on a database that anyone had filled.
FIRST = "0131"
SOURCES = sorted((ROOT / "migrations" / "versions").glob("[0-9]*.py"))


def test_no_migration_takes_a_long_lock() -> None:
    later = [path for path in SOURCES if path.name >= FIRST]
    found = {path.name: faults(path.read_text()) for path in later}
    assert {name: said for name, said in found.items() if said} == {}


def test_the_rule_sees_what_the_first_ones_did() -> None:
    seen = {path.name[:4] for path in SOURCES if faults(path.read_text())}
    # Indexes on `member` and on `room`, made while nobody had rooms.
    assert {"0030", "0015"} <= seen
    assert "0001" not in seen


@pytest.mark.parametrize(
    "line",
    [
        'op.create_index("ix", "message", ["room_id"])',
        'op.create_foreign_key("fk", "message", "room", ["a"], ["b"])',
        'op.create_check_constraint("ck", "room", "a > 0")',
        'op.alter_column("message", "content", type_=sa.Text())',
        'op.alter_column("message", "content", nullable=False)',
        'op.add_column("room", sa.Column("a", sa.UUID(), server_default=text("random()")))',
        'op.add_column("room", sa.Column("a", sa.UUID(), sa.ForeignKey("client.id")))',
        'op.execute("create unique index ix on message (room_id)")',
        'op.execute("alter table message alter column seq type numeric")',
        'op.execute("alter table message alter seq set not null")',
        'op.execute("alter table message add constraint c check (seq > 0)")',
        'op.execute("update message set content = null")',
        'op.execute("delete from room_event where seq < 5")',
        'op.execute("lock table room")',
        'op.execute("truncate outbox")',
        'op.execute(f"create index {NAME} on room (a)")',
    ],
)
def test_a_long_lock_is_found(line: str) -> None:
    assert faults(f"def upgrade():\n    {line}\n")


@pytest.mark.parametrize(
    "line",
    [
        'op.create_index("ix", "message", ["room_id"], postgresql_concurrently=True)',
        'add_index("ix", "message", "(room_id)")',
        'add_constraint("ck", "room", "check (a > 0)")',
        'fill("update room set a = 1 where id = any (array(select id from room limit :limit))")',
        'op.add_column("message", sa.Column("a", sa.Text(), nullable=True))',
        'op.add_column("message", sa.Column("a", sa.Text(), server_default="", nullable=False))',
        'op.create_table("fresh")\n    op.create_index("ix", "fresh", ["a"])',
        'op.execute("alter table message add constraint c check (seq > 0) not valid")',
        'op.execute("create function f() returns int as $$ update message set a = 1 $$")',
    ],
)
def test_what_waits_for_nobody_is_let_pass(line: str) -> None:
    assert (
        faults(f"def upgrade():\n    {line}\n\n\ndef downgrade():\n    op.execute('truncate x')\n")
        == []
    )
