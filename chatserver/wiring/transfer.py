"""How export and import are built, for one client."""

from uuid import UUID

from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.search.indexing import Indexer
from chatserver.transfer.export import Export
from chatserver.transfer.service import Import
from chatserver.wiring.core import Core


def open_export(core: Core, client_id: UUID) -> Export:
    return Export(core.open(_itself), client_id)


def open_import(core: Core, client_id: UUID) -> Import:
    async def index(work: UnitOfWork, message_ids: list[UUID]) -> None:
        await Indexer.put_with(work.session, message_ids)

    return Import(core.open(_itself), client_id, index=index)


def _itself(work: UnitOfWork) -> UnitOfWork:
    return work
