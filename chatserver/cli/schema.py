"""Whether the database is one that this version can work with, said in a sentence."""

import asyncpg

from chatserver.infra import revisions
from chatserver.settings import Settings

_CONNECT_S = 5.0


class NotReachedError(Exception):
    """PostgreSQL does not answer; it may later."""


async def schema_problem(settings: Settings) -> str:
    """Say why the database can't be used and how to mend it; nothing when it can.

    Raises:
        NotReachedError: PostgreSQL can't be reached now.
    """
    try:
        connection = await asyncpg.connect(
            settings.database_url.get_secret_value(), timeout=_CONNECT_S
        )
    except asyncpg.InvalidAuthorizationSpecificationError:
        return "PostgreSQL refused the role of DATABASE_URL. Run `chatserver migrate`: it makes it."
    except asyncpg.InvalidCatalogNameError:
        return (
            "There is no such database as DATABASE_URL names. Create it, owned by the role of"
            " MIGRATOR_DATABASE_URL, then run `chatserver migrate`."
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NotReachedError(str(error) or type(error).__name__) from error
    try:
        revision, floor = await _versions(connection)
    except asyncpg.PostgresError as error:
        return f"PostgreSQL refused: {error}. Run `chatserver migrate`."
    finally:
        await connection.close()
    return _difference(revision, floor)


async def _versions(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> tuple[str | None, str | None]:
    """Read the schema's revision and the oldest that works with it; older schemas say neither."""
    try:
        revision = await connection.fetchval("select version_num from alembic_version")
    except asyncpg.UndefinedTableError:
        return None, None
    try:
        return revision, await connection.fetchval("select schema_floor()")
    except asyncpg.UndefinedFunctionError:
        return revision, None


def _difference(revision: str | None, floor: str | None) -> str:
    """Compare with this version; `floor`: the oldest one that works with the schema."""
    head = revisions.head()
    if revision is None:
        return f"The database has no schema; this version needs {head}. Run `chatserver migrate`."
    if revision < head:
        return (
            f"The database is at revision {revision}; this version needs {head}."
            " Run `chatserver migrate`."
        )
    # A newer version is being rolled out: as long as what this one needs is there, both may run.
    if revision > head and (floor is None or floor > head):
        return (
            f"The database is at revision {revision}, which is too new for this version ({head})."
            " Install the version that migrated it, or a newer one."
        )
    return ""
