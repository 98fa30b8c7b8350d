"""Removes what deleted documents and bots leave behind, slice by slice: passages, files, seats."""

from collections.abc import Callable
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import text

from chatserver.assistant.training.repository import IndexRepository, Source
from chatserver.infra.storage import ObjectStore
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from chatserver.rooms.models import Room

SLICE: Final = 200

_OF_BOT: Final = text("""
update document set deleted_at = clock_timestamp()
where client_id = :client and bot_id = :bot and deleted_at is null
""")
_DELETED: Final = text("""
-- A file of the dashboard is the dashboard's own.
select id, bot_id, case when origin = 'local' or kind <> 'file' then storage_key end as storage_key
from document
where client_id = :client and deleted_at is not null
  and (id = cast(:document as uuid) or bot_id = cast(:bot as uuid))
order by id limit :slice
""")
_CHUNKS: Final = text("""
select c.id, c.n_terms, (select count(*) from chunk_part p
   where p.client_id = c.client_id and p.bot_id = c.bot_id and p.chunk_id = c.id
     and p.model_id = (select model_id from bot_index i
       where i.client_id = c.client_id and i.bot_id = c.bot_id)) as n_parts
from chunk c where c.client_id = :client and c.document_id = :document limit :slice
for update of c
""")
_DOCUMENT: Final = text("delete from document where client_id = :client and id = :document")
_JOBS: Final = text("""
delete from training_job where client_id = :client and document_id = :document
""")
_ROOMS: Final = text("""
select room_id from room_bot where client_id = :client and bot_id = :bot
order by room_id limit :slice
""")
_SEAT: Final = text("""
delete from room_bot where client_id = :client and room_id = :room and bot_id = :bot
""")
_BOT: Final = text("""
delete from bot where client_id = :client and id = :bot and deleted_at is not null
""")


class Rooms(Protocol):
    """Rooms of one transaction."""

    async def lock(self, client_id: UUID, room_id: UUID) -> Room | None: ...


class Purger:
    def __init__(
        self,
        *,
        open_work: Open[UnitOfWork],
        rooms: Callable[[UnitOfWork], Rooms],
        store: ObjectStore,
    ) -> None:
        self._open_work = open_work
        self._rooms = rooms
        self._store = store

    async def purge_document(self, client_id: UUID, document_id: UUID) -> None:
        """Remove a deleted document; nothing when it is gone or came back.

        Raises:
            UnavailableError: its file can't be deleted now; the job is tried again.
        """
        await self._purge(client_id, document=document_id, bot=None)

    async def purge_bot(self, client_id: UUID, bot_id: UUID) -> None:
        """Remove a deleted bot: its documents, its seats in rooms, then itself."""
        names = {"client": client_id, "bot": bot_id}
        async with self._open_work() as work:
            await work.session.execute(_OF_BOT, names)
        await self._purge(client_id, document=None, bot=bot_id)
        while rooms := await self._rooms_of(names):
            for room_id in rooms:
                await self._unseat(client_id, room_id, bot_id)
        async with self._open_work() as work:
            await work.session.execute(_BOT, names)

    async def _purge(self, client_id: UUID, *, document: UUID | None, bot: UUID | None) -> None:
        names = {"client": client_id, "document": document, "bot": bot, "slice": SLICE}
        while True:
            async with self._open_work() as work:
                found = (await work.session.execute(_DELETED, names)).all()
            if not found:
                return
            for each in found:
                source = Source(client_id, each.bot_id, each.id)
                while await self._remove_chunks(source):
                    pass
                if each.storage_key is not None:
                    await self._store.delete([each.storage_key])
                async with self._open_work() as work:
                    await work.session.execute(_JOBS, source.names())
                    await work.session.execute(_DOCUMENT, source.names())

    async def _remove_chunks(self, source: Source) -> bool:
        async with self._open_work() as work:
            index = IndexRepository(work.session)
            found = (await work.session.execute(_CHUNKS, source.names(slice=SLICE))).all()
            if found:
                await index.remove(source, [each.id for each in found])
                await index.count(
                    source,
                    None,
                    chunks=-len(found),
                    terms=-sum(each.n_terms for each in found),
                    parts=-sum(each.n_parts for each in found),
                    config=None,
                )
        return bool(found)

    async def _rooms_of(self, names: dict[str, Any]) -> list[UUID]:
        async with self._open_work() as work:
            found = await work.session.scalars(_ROOMS, {**names, "slice": SLICE})
            return list(found)

    async def _unseat(self, client_id: UUID, room_id: UUID, bot_id: UUID) -> None:
        async with self._open_work() as work:
            room = await self._rooms(work).lock(client_id, room_id)
            gone = await work.session.execute(
                _SEAT, {"client": client_id, "room": room_id, "bot": bot_id}
            )
            if room is not None and gone.rowcount:  # type: ignore[attr-defined]  # of a delete
                room.bots = max(0, room.bots - 1)
