"""Remembers for all workers how an endpoint's model goes on with a text that broke off."""

from typing import Final, cast
from urllib.parse import urlsplit

import structlog

from chatserver.assistant.answering.schemas import ContinueMode
from chatserver.infra.database import Database, outages
from chatserver.kernel.errors import UnavailableError

# Servers are replaced by newer ones: what they could not do is tried again some day.
HOLDS_DAYS: Final = 7
LONGEST_ENDPOINT: Final = 256
LONGEST_MODEL: Final = 128

_KNOWN: Final = """
select mode from continue_way where endpoint = $1 and model = $2
  and learnt_at > clock_timestamp() - make_interval(days => $3)
"""
_LEARN: Final = """
insert into continue_way as w (endpoint, model, mode) values ($1, $2, $3)
on conflict (endpoint, model) do update set mode = excluded.mode, learnt_at = clock_timestamp()
"""

log = structlog.get_logger()


class Ways:
    """While PostgreSQL is away nothing is known, and nothing learnt."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, endpoint: str, model: str) -> ContinueMode | None:
        try:
            with outages():
                pool = await self._database.fast()
                rows = await pool.fetch(_KNOWN, endpoint, model[:LONGEST_MODEL], HOLDS_DAYS)
        except UnavailableError:
            return None
        return cast("ContinueMode", rows[0]["mode"]) if rows else None

    async def learn(self, endpoint: str, model: str, mode: ContinueMode) -> None:
        log.info("continue_mode_learnt", endpoint=endpoint, model=model, mode=mode)
        try:
            with outages():
                pool = await self._database.writing()
                await pool.execute(_LEARN, endpoint, model[:LONGEST_MODEL], mode)
        except UnavailableError:
            return


def endpoint_of(base_url: str) -> str:
    """Name an endpoint without what is secret in its address."""
    parts = urlsplit(base_url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.hostname or ''}{port}{parts.path.rstrip('/')}"[:LONGEST_ENDPOINT]
