"""How searching is built."""

from collections.abc import Callable
from typing import Final

from chatserver.infra.cluster import AdvisoryLeader
from chatserver.infra.cursors import CursorSeal
from chatserver.infra.statements import Statements
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.rooms.service import RoomService
from chatserver.search.indexing import Indexer
from chatserver.search.repository import SETTINGS, SearchRepository
from chatserver.search.service import SearchService
from chatserver.wiring.core import Core

# The number of the advisory lock of whoever indexes: "csix".
INDEXING: Final = 0x63736978
CONNECTIONS: Final = 2


class SearchParts:
    def __init__(self, core: Core, *, rooms: Callable[[UnitOfWork], RoomService]) -> None:
        self._pool = Statements(
            core.settings.database_url.get_secret_value(), size=CONNECTIONS, settings=SETTINGS
        )
        self.repository = SearchRepository(self._pool)
        self.service = SearchService(
            repository=self.repository, rooms=core.open(rooms), seal=CursorSeal(core.box)
        )
        self.indexer = Indexer(core.database)
        self.leader = AdvisoryLeader(core.database, INDEXING)

    async def close(self) -> None:
        await self._pool.close()
