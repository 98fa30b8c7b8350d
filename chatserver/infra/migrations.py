"""Brings the schema to head as the migrator, and makes the restricted application role."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from chatserver.infra.database import engine_url
from chatserver.infra.revisions import DIRECTORY
from chatserver.kernel.errors import OperatorError

LOCK_TIMEOUT_MS: Final = 1000
# How long locks are asked for again and again, and how long others may pass in between.
PATIENCE_S: Final = 120.0
PAUSE_S: Final = (0.5, 2.0)
# 55P03 lock not available, 40P01 deadlock: somebody else has what this needs, for now.
_BUSY: Final = frozenset({"55P03", "40P01"})


class MigrationError(OperatorError):
    """The schema or its roles can't be made; the text says how to mend it."""


@dataclass(frozen=True, slots=True)
class Role:
    """The role that an application URL names."""

    name: str
    password: str | None

    @classmethod
    def of(cls, url: str, setting: str = "DATABASE_URL") -> "Role":
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            msg = f"{setting} must look like postgresql://user:password@host:5432/database."
            raise MigrationError(msg) from None
        if not parts.username:
            msg = f"{setting} names no user: postgresql://user:password@host:5432/database"
            raise MigrationError(msg)
        return cls(unquote(parts.username), unquote(parts.password) if parts.password else None)


def config(migrator_url: str) -> Config:
    """Give Alembic's configuration; there is no ini file, the settings are the one source."""
    made = Config()
    made.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
    made.attributes["url"] = engine_url(migrator_url)
    return made


def migrate(migrator_url: str, application_url: str) -> None:
    """Upgrade to head, make the application role and grant it rows, nothing else.

    Raises:
        MigrationError: with a sentence for whoever runs it.
    """
    application = Role.of(application_url)
    if application.name == Role.of(migrator_url, "MIGRATOR_DATABASE_URL").name:
        msg = (
            "DATABASE_URL and MIGRATOR_DATABASE_URL name the same role; the server must not own its"
            " tables. Name another user in DATABASE_URL: `chatserver migrate` creates it."
        )
        raise MigrationError(msg)
    try:
        upgrade(config(migrator_url))
        asyncio.run(_grant(migrator_url, application))
    except (
        OSError,
        TimeoutError,
        SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
    ) as error:
        msg = (
            f"PostgreSQL refused: {_reason(error)}."
            " Check MIGRATOR_DATABASE_URL, and that its role owns the database."
        )
        raise MigrationError(msg) from error


def upgrade(
    to: Config, *, patience_s: float = PATIENCE_S, waits: Callable[[], None] = lambda: None
) -> None:
    """Upgrade to head beside a server that works: locks are asked for shortly, and again.

    `waits` is called whenever a lock was not to be had. Raises MigrationError when that goes on for
    `patience_s`; the steps that were done are done.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            command.upgrade(to, "head")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _BUSY:
                raise
            if time.monotonic() > deadline:
                msg = (
                    f"A lock was not to be had within {patience_s:.0f} s: {_reason(error)}."
                    " Somebody keeps a transaction open: look for the oldest `xact_start` in"
                    " pg_stat_activity. Then run it again: it goes on where it stood."
                )
                raise MigrationError(msg) from error
            waits()
            time.sleep(random.uniform(*PAUSE_S))  # noqa: S311 - a pause
        else:
            return


def _reason(error: BaseException) -> str:
    # What PostgreSQL itself said, without the statement and the wrappers around it.
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


async def _grant(migrator_url: str, role: Role) -> None:
    connection = await asyncpg.connect(migrator_url, timeout=10)
    try:
        async with connection.transaction():
            # Two migrations at once would trip over each other's grants.
            await connection.execute("select pg_advisory_xact_lock(hashtext('chatserver.migrate'))")
            await _make(connection, role)
            name = await _quoted(connection, role.name)
            database = await connection.fetchval("select quote_ident(current_database())")
            ours = {kind: await connection.fetchval(query) for kind, query in _OURS.items()}
            for statement in _GRANTS:
                await connection.execute(statement.format(role=name, database=database, **ours))
    finally:
        await connection.close()


async def _make(connection: "asyncpg.Connection[asyncpg.Record]", role: Role) -> None:
    known = await connection.fetchval("select 1 from pg_roles where rolname = $1", role.name)
    name = await _quoted(connection, role.name)
    password = await connection.fetchval("select quote_nullable($1::text)", role.password)
    clause = "" if role.password is None else f" password {password}"
    if not known:
        await connection.execute(
            f"create role {name} login nosuperuser nocreatedb nocreaterole{clause}"
        )
        return
    if role.password is None:
        return
    try:
        async with connection.transaction():
            await connection.execute(f"alter role {name} login{clause}")
    except asyncpg.InsufficientPrivilegeError:
        # An operator made the role: its password is the operator's business.
        return


async def _quoted(connection: "asyncpg.Connection[asyncpg.Record]", name: str) -> str:
    return str(await connection.fetchval("select quote_ident($1)", name))


# Our own things only: others may have theirs in the same schema, and those are not ours to grant.
_OURS = {
    "tables": (
        "select string_agg(oid::regclass::text, ', ') from pg_class where relkind = 'r'"
        " and relnamespace = 'public'::regnamespace and relowner = current_user::regrole"
    ),
    "sequences": (
        "select string_agg(oid::regclass::text, ', ') from pg_class where relkind = 'S'"
        " and relnamespace = 'public'::regnamespace and relowner = current_user::regrole"
    ),
    "functions": (
        "select string_agg(oid::regprocedure::text, ', ') from pg_proc"
        " where pronamespace = 'public'::regnamespace and proowner = current_user::regrole"
    ),
}
_GRANTS = (
    "revoke create, temporary on database {database} from public",
    "revoke create, temporary on database {database} from {role}",
    "grant connect on database {database} to {role}",
    "revoke all on schema public from public",
    "revoke create on schema public from {role}",
    "grant usage on schema public to {role}",
    "revoke all on table {tables} from {role}",
    "grant select, insert, update, delete on table {tables} to {role}",
    "revoke all on table alembic_version from {role}",
    "grant select on table alembic_version to {role}",
    "grant usage on sequence {sequences} to {role}",
    # A restored backup has lost who may not.
    "revoke all on function {functions} from public",
    "grant execute on function {functions} to {role}",
)
