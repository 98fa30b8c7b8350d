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
        revision = await connection.fetchval("select version_num from alembic_version")
    except asyncpg.UndefinedTableError:
        revision = None
    except asyncpg.PostgresError as error:
        return f"PostgreSQL refused: {error}. Run `chatserver migrate`."
    finally:
        await connection.close()
    head = revisions.head()
    if revision == head:
        return ""
    found = "has no schema" if revision is None else f"is at revision {revision}"
    return f"The database {found}; this version needs {head}. Run `chatserver migrate`."
