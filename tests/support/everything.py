"""Looks through every row of every table, for what must not be there any more."""

import asyncpg


async def rows_with(url: str, canary: str) -> dict[str, list[str]]:
    """Give the rows, by table, whose text has the canary anywhere; bytes are read as text, too."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "select table_name from information_schema.tables"
            " where table_schema = 'public' and table_type = 'BASE TABLE'"
        )
        found: dict[str, list[str]] = {}
        for (table,) in tables:
            # Bytes come out as hexadecimal: look for the canary in that notation as well.
            rows = await connection.fetch(
                f'select t::text from "{table}" t where strpos(t::text, $1) > 0'
                " or strpos(t::text, $2) > 0",
                canary,
                canary.encode().hex(),
            )
            if rows:
                found[table] = [row[0] for row in rows]
        return found
    finally:
        await connection.close()
