"""Every query about files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.files.models import StoredFile
from chatserver.files.policies import key_of

_FILE: Final = """
  f.id, f.client_id, f.uploader_id, u.external_id as uploader, f.name, f.content_type, f.size,
  f.sha256, f.state, f.reason, f.width, f.height, f.has_thumbnail, f.created_at
"""
# Whoever uploaded it, and whoever may read a message that carries it, as it is now.
_MAY_SEE: Final = """
  (cast(:user as uuid) is null or f.uploader_id = :user or exists (
    select from message_file c
    join message m on m.id = c.message_id and m.client_id = c.client_id and m.deleted_at is null
    join room r on r.id = m.room_id and r.deleted_at is null and m.seq >= r.min_seq
    left join member x on x.room_id = m.room_id and x.user_id = :user
    where c.file_id = f.id and c.client_id = f.client_id
      and (m.seq >= x.min_seq or (x.user_id is null and r.type = 'channel'))))
"""
_FIND: Final = text(f"""
select {_FILE} from file f left join app_user u on u.id = f.uploader_id
where f.client_id = :client and f.id = any (:ids) and {_MAY_SEE}
""")  # noqa: S608 - constants of this file
_OWN: Final = text(f"""
select {_FILE} from file f left join app_user u on u.id = f.uploader_id
where f.client_id = :client and f.id = :id
  and (cast(:user as uuid) is null or f.uploader_id = :user)
""")  # noqa: S608 - constants of this file
# One that failed, or was never uploaded, may be given again.
_RESTORE: Final = text("""
insert into file as f (id, client_id, uploader_id, name, content_type, size, sha256, state,
  has_thumbnail, expires_at, created_at)
values (:id, :client_id, :uploader_id, :name, :content_type, :size, :sha256, 'pending', false,
  clock_timestamp() + make_interval(secs => :life),
  coalesce(cast(:created_at as timestamptz), clock_timestamp()))
on conflict (id) do update set state = 'pending', expires_at = excluded.expires_at
where f.client_id = excluded.client_id and f.state <> 'ready'
""")
_MOVE: Final = text("""
update file set state = :state, reason = :reason, width = :width, height = :height,
  expires_at = clock_timestamp() + make_interval(secs => :keep)
where id = :id and client_id = :client and state in ('pending', 'checking')
returning id
""")
_THUMBNAIL: Final = text(
    "update file set has_thumbnail = true where id = :id and client_id = :client returning id"
)
_HOLD: Final = text("""
update file set expires_at = clock_timestamp() + interval '1 day'
where client_id = :client and id = any (:ids)
  and expires_at < clock_timestamp() + interval '1 day'
""")
# A day more than asked for: a file that goes out a thousand times is not written as often.
_HOLD_UNTIL: Final = text("""
update file set expires_at = cast(:until as timestamptz) + interval '1 day'
where id = any (array(
  select f.id from file f where f.client_id = :client and f.id = any (:ids)
    and f.state = 'ready' and f.expires_at < :until
  order by f.id for no key update))
""")
# Nobody deletes them before this transaction ends.
_PIN: Final = text("""
select id from file where client_id = :client and id = any (:ids) order by id for key share
""")
# What a message carries stays, however old; it is looked at again when the last message lets go.
_KEEP: Final = text("""
update file set expires_at = 'infinity' where id = any (array(
  select f.id from file f where f.state = 'ready' and f.expires_at < statement_timestamp()
    and exists (select from message_file c where c.file_id = f.id)
  order by f.expires_at limit :limit for update skip locked))
""")
_EXPIRE: Final = text("""
delete from file where id = any (array(
  select f.id from file f
  where f.state = any (array['pending', 'checking', 'failed', 'ready'])
    and f.expires_at < statement_timestamp()
    and not exists (select from message_file c where c.file_id = f.id)
    and not exists (select from notification_file n where n.file_id = f.id)
  limit :limit for update skip locked))
""")
_REMOVABLE: Final = text("""
select key from object_removal where due_at < statement_timestamp() order by due_at limit :limit
""")
_REMOVED: Final = text("delete from object_removal where key = any (:keys)")
_OF_USER: Final = text(
    "select id from file where client_id = :client and uploader_id = :user limit :limit"
)
_UNNAME: Final = text("""
update message m set attachments = (
  select jsonb_agg(case when a.each ->> 'file_id' = any (:names)
    then jsonb_build_object('file_id', a.each ->> 'file_id', 'erased', true) else a.each end
    order by a.ord)
  from jsonb_array_elements(m.attachments) with ordinality a (each, ord))
where m.client_id = :client and m.id = any (array(
  select c.message_id from message_file c where c.client_id = :client and c.file_id = any (:ids)))
""")
_DELETE: Final = text("delete from file where client_id = :client and id = any (:ids) returning id")
_LIST: Final = text(f"""
select {_FILE} from file f left join app_user u on u.id = f.uploader_id
where f.client_id = :client and f.uploader_id = :user order by f.created_at, f.id
""")  # noqa: S608 - constants of this file


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A file as the service needs it; `uploader` is the external id."""

    id: UUID
    client_id: UUID
    uploader_id: UUID | None
    uploader: str | None
    name: str
    content_type: str
    size: int
    sha256: bytes
    state: str
    reason: str | None
    width: int | None
    height: int | None
    has_thumbnail: bool
    created_at: datetime


class FileRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, file: StoredFile, *, life: timedelta) -> datetime:
        """Keep a file that is going to be uploaded; when the link to do so must have ended."""
        now: datetime = (await self._session.execute(text("select clock_timestamp()"))).scalar_one()
        file.created_at = now
        file.expires_at = now + life
        self._session.add(file)
        await self._session.flush()
        return now

    async def restore(self, file: StoredFile, *, life: timedelta) -> FileRow | None:
        """Make a file that is to have this id, or give the one that has; None: it is another's."""
        values = file.model_dump() | {"life": life.total_seconds()}
        await self._session.execute(_RESTORE, values)
        # It may have been here before, and its objects be about to be removed.
        await self.removed(
            [key_of(file.client_id, file.id, noun) for noun in ("incoming", "files", "thumbnails")]
        )
        return await self.own(file.client_id, file.id, owner=None)

    async def find(
        self, client_id: UUID, ids: Sequence[UUID], *, reader: UUID | None
    ) -> dict[UUID, FileRow]:
        """Read files that somebody may see; `reader` None: the application, which may see all."""
        found = await self._session.execute(
            _FIND, {"client": client_id, "ids": list(ids), "user": reader}
        )
        return {row["id"]: _row(row) for row in found.mappings()}

    async def own(self, client_id: UUID, file_id: UUID, *, owner: UUID | None) -> FileRow | None:
        """Read a file that somebody uploaded; `owner` None: whoever it was."""
        found = await self._session.execute(
            _OWN, {"client": client_id, "id": file_id, "user": owner}
        )
        row = found.mappings().one_or_none()
        return None if row is None else _row(row)

    async def settle(
        self,
        file: FileRow,
        *,
        state: str,
        reason: str | None = None,
        size: tuple[int, int] | None = None,
        keep: timedelta,
    ) -> bool:
        """Record how a check came out; False: another one was faster."""
        width, height = size or (None, None)
        moved = await self._session.execute(
            _MOVE,
            {
                "id": file.id,
                "client": file.client_id,
                "state": state,
                "reason": reason,
                "width": width,
                "height": height,
                "keep": keep.total_seconds(),
            },
        )
        return moved.first() is not None

    async def has_thumbnail(self, file: FileRow) -> bool:
        """Note that there is a thumbnail; False: the file is gone."""
        noted = await self._session.execute(_THUMBNAIL, {"id": file.id, "client": file.client_id})
        return noted.first() is not None

    async def hold(
        self, client_id: UUID, ids: Sequence[UUID], *, until: datetime | None = None
    ) -> None:
        """Keep files from the janitor until the message that is to carry them is there.

        `until`: at least so long, and from everybody until the end of this transaction.
        """
        values = {"client": client_id, "ids": list(ids)}
        if until is None:
            await self._session.execute(_HOLD, values)
            return
        await self._session.execute(_PIN, values)
        await self._session.execute(_HOLD_UNTIL, values | {"until": until})

    async def expire(self, limit: int) -> int:
        """Delete up to `limit` files that nobody completed, and that nothing carries."""
        await self._session.execute(_KEEP, {"limit": limit})
        gone = await self._session.execute(_EXPIRE, {"limit": limit})
        return int(gone.rowcount)  # type: ignore[attr-defined]  # of a delete

    async def removable(self, limit: int) -> list[str]:
        """Give keys of objects whose files are gone."""
        return list((await self._session.execute(_REMOVABLE, {"limit": limit})).scalars())

    async def removed(self, keys: Sequence[str]) -> None:
        await self._session.execute(_REMOVED, {"keys": list(keys)})

    async def delete(self, client_id: UUID, ids: Sequence[UUID]) -> int:
        """Delete files; a trigger notes their objects, and messages lose them."""
        gone = await self._session.execute(_DELETE, {"client": client_id, "ids": list(ids)})
        return len(gone.all())

    async def forget(self, client_id: UUID, user_id: UUID, limit: int) -> list[UUID]:
        """Delete a slice of a person's files, and their names from messages of others."""
        found = await self._session.execute(
            _OF_USER, {"client": client_id, "user": user_id, "limit": limit}
        )
        ids = list(found.scalars())
        if ids:
            names = [str(each) for each in ids]
            await self._session.execute(_UNNAME, {"client": client_id, "ids": ids, "names": names})
            await self.delete(client_id, ids)
        return ids

    async def of_user(self, client_id: UUID, user_id: UUID) -> list[FileRow]:
        found = await self._session.execute(_LIST, {"client": client_id, "user": user_id})
        return [_row(row) for row in found.mappings()]


def _row(row: RowMapping) -> FileRow:
    return FileRow(**row)
