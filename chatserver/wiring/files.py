"""How files are built: the store that the settings name, and what works on it."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import orjson

from chatserver.files.checking import FileChecker
from chatserver.files.policies import key_of
from chatserver.files.repository import FileRepository, FileRow
from chatserver.files.service import FileJanitor, FileService
from chatserver.infra import jobs
from chatserver.infra.job_kinds import CHECK_FILE
from chatserver.infra.mail import Attachment
from chatserver.infra.storage import ObjectMissingError, ObjectStore, Standing
from chatserver.infra.storage_disk import DiskStore, LinkSeal
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.principal import Principal
from chatserver.settings import Settings
from chatserver.transport.limits import quota_exceeded
from chatserver.wiring.core import Core


def open_store(settings: Settings) -> ObjectStore:
    """Open the bucket that is named, or else the directory."""
    if settings.s3_bucket is None:
        return DiskStore(
            settings.files_dir,
            seal=LinkSeal([key.get_secret_value() for key in settings.secret_keys]),
            public_url=settings.public_url or "",
        )
    # Its library takes a tenth of the start, and is for nothing where no bucket is named.
    from chatserver.infra.storage_s3 import S3Store  # noqa: PLC0415

    secret = settings.s3_secret_access_key
    return S3Store(
        bucket=settings.s3_bucket,
        access_key_id=settings.s3_access_key_id or "",
        secret_access_key="" if secret is None else secret.get_secret_value(),
        endpoint_url=settings.s3_endpoint_url,
        public_url=settings.s3_public_base_url,
        region=settings.s3_region,
    )


class FilesParts:
    """Files of one process, and the store that others may use as well."""

    def __init__(self, core: Core) -> None:
        self._core = core
        settings = core.settings
        self.store = open_store(settings)
        self.standing = Standing(self.store)
        self._open_files = open_files = core.open(lambda work: FileRepository(work.session))
        self.service = FileService(
            open_files=open_files,
            store=self.store,
            checker=FileChecker(
                open_files=open_files,
                store=self.store,
                unattached=timedelta(days=settings.file_keep_unattached_days),
            ),
            spend=self._spend,
            require=self.standing.require,
            most_bytes=settings.file_bytes,
            later=self._later,
        )
        self.janitor = FileJanitor(open_files=open_files, store=self.store)

    async def attached(
        self, client_id: UUID, asked: Sequence[tuple[UUID, str | None]]
    ) -> list[Attachment]:
        """Read what a mail carries: (file, the name that it is to have).

        Raises:
            ObjectMissingError: one of them is not there any more.
            UnavailableError: PostgreSQL or the store is away.
        """
        async with self._open_files() as files:
            found = await files.find(client_id, [file_id for file_id, _ in asked], reader=None)
        # All of them before any is read: the row goes first, and its object some time later.
        if any(file_id not in found or found[file_id].state != "ready" for file_id, _ in asked):
            raise ObjectMissingError
        made = []
        for file_id, name in asked:
            content = await self.store.read(key_of(client_id, file_id))
            if len(content) != found[file_id].size:
                raise ObjectMissingError
            made.append(
                Attachment(name or found[file_id].name, found[file_id].content_type, content)
            )
        return made

    async def _later(self, file: FileRow) -> None:
        async with self._core.open(_itself)() as work:
            await jobs.plan(
                work.session,
                CHECK_FILE,
                dedupe=str(file.id),
                client_id=file.client_id,
                payload=orjson.dumps({"file_id": str(file.id)}).decode(),
            )
        self._core.doorbell.ring([CHECK_FILE.name])

    async def _spend(self, principal: Principal, amount: int) -> None:
        gate, quotas = self._core.gate, self._core.quotas
        if not gate.is_enabled:
            return
        await gate.book.load(principal.client_id)
        limits = gate.book.of(principal.client_id).quotas
        use = quotas.exceeded(principal.client_id, "storage_bytes", limits, amount)
        if use is not None:
            raise quota_exceeded(use)
        quotas.spend(principal.client_id, "storage_bytes", amount)

    def close(self) -> None:
        self.store.close()


def _itself(work: UnitOfWork) -> UnitOfWork:
    return work
