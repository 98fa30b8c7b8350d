"""Gives keys that were used a MAC under the newest pepper, in the background."""

from typing import Final

import structlog
from sqlalchemy import text

from chatserver.infra.database import Database
from chatserver.infra.lazily import flush_often

log = structlog.get_logger()

MOST_WAITING: Final = 10_000

# By the old MAC: whoever changed the row meanwhile has done better already.
_STATEMENTS: Final = (
    text(
        "update key_family set"
        " cur_mac = case when cur_mac = :old then :new else cur_mac end,"
        " pend_mac = case when pend_mac = :old then :new else pend_mac end,"
        " prev_mac = case when prev_mac = :old then :new else prev_mac end, pepper_id = :pepper"
        " where kid = :kid and (cur_mac = :old or pend_mac = :old or prev_mac = :old)"
    ),
    text("update key_retired set mac = :new where kid = :kid and mac = :old"),
    text("update client_key set mac = :new, pepper_id = :pepper where kid = :kid and mac = :old"),
)


class Remac:
    """Collects what `KeyHasher.outdated` tells. Lost notes cost nothing: the next use brings them.

    Public keys ids and MACs only: no key is ever kept here.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[bytes, tuple[str, bytes]] = {}

    def note(self, kid: str, old: bytes, new: bytes) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting[old] = (kid, new)

    async def flush(self) -> None:
        """Write what waits, each key in a transaction of its own."""
        waiting, self._waiting = self._waiting, {}
        for old, (kid, new) in waiting.items():
            values = {
                "kid": kid,
                "old": old,
                "new": new,
                "pepper": int.from_bytes(new[:4]) >> 1,
            }
            try:
                async with self._database.transaction() as session:
                    for statement in _STATEMENTS:
                        await session.execute(statement, values)
            except Exception as error:  # noqa: BLE001 - harmless to lose, whatever the reason
                log.warning("remac_failed", error=repr(error))
                return

    async def run(self) -> None:
        """Flush every 5 s, until cancelled; then once more."""
        await flush_often(self.flush)
