"""What migrations do to tables that are in use, so that nobody waits for longer than a moment.

Each of these commits what came before it, and may be done again after it was interrupted.
"""

from alembic import op
from sqlalchemy import text


def add_index(name: str, table: str, what: str, *, unique: bool = False) -> None:
    """Build an index beside whoever writes; `what` is all that follows the table's name.

    What is left of an interrupted attempt goes first.
    """
    kind = "unique index" if unique else "index"
    with op.get_context().autocommit_block():
        # It waits for every transaction that is older than itself, and stops nobody meanwhile.
        op.execute("set lock_timeout = 0")
        op.execute(f"drop index concurrently if exists {name}")
        op.execute(f"create {kind} concurrently {name} on {table} {what}")
        op.execute("reset lock_timeout")


def drop_index(name: str) -> None:
    with op.get_context().autocommit_block():
        op.execute("set lock_timeout = 0")
        op.execute(f"drop index concurrently if exists {name}")
        op.execute("reset lock_timeout")


def add_constraint(name: str, table: str, what: str) -> None:
    """Add a check or a foreign key: first for new rows, then the old ones are looked through.

    Looking through them lets everyone read and write.
    """
    with op.get_context().autocommit_block():
        op.execute(f"alter table {table} drop constraint if exists {name}")
        op.execute(f"alter table {table} add constraint {name} {what} not valid")
        op.execute(f"alter table {table} validate constraint {name}")


def fill(statement: str, *, size: int = 1000) -> int:
    """Run an update of at most `:limit` rows until it finds none; each is a transaction.

    `statement` picks what is still to do, with `for update skip locked`. Gives the count.
    """
    done = 0
    with op.get_context().autocommit_block():
        while True:
            found = op.get_bind().execute(text(statement), {"limit": size}).rowcount
            done += found
            if not found:
                return done
