"""How erasures, exports, holds and retention are built: they reach into every feature."""

from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import UUID

import orjson

from chatserver.api_keys.repository import KeyFamilyRepository
from chatserver.files.service import FileJanitor
from chatserver.infra import jobs
from chatserver.infra.job_kinds import ERASE_USER, PURGE_ROOM
from chatserver.infra.signing import ReportSigner
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.privacy.erasing import Eraser
from chatserver.privacy.export import Exporter
from chatserver.privacy.holds import HoldRepository, HoldService
from chatserver.privacy.repository import PrivacyRepository
from chatserver.privacy.retention import Keeper
from chatserver.privacy.service import PrivacyService
from chatserver.realtime.ports import Closing
from chatserver.rooms.repository import RoomRepository
from chatserver.users.models import User
from chatserver.users.service import UserService
from chatserver.wiring.core import Core

# Longer than an operation may take (registry: 4 s).
ERASE_AFTER_S: Final = 5.0


class Privacy:
    """`users` builds within a transaction; `kick` closes sockets everywhere."""

    def __init__(
        self,
        core: Core,
        *,
        users: Callable[[UnitOfWork], UserService],
        kick: Callable[[Closing], None],
        files: FileJanitor,
        count_changed: Callable[[UUID, UUID], None],
    ) -> None:
        self._core = core
        self._users = users
        self._kick = kick
        self.signer = ReportSigner([key.get_secret_value() for key in core.settings.secret_keys])
        work = core.open(_itself)
        self.exporter = Exporter(work, users)
        self.keeper = Keeper(work)
        self.eraser = Eraser(
            open_work=work,
            rooms=lambda within: RoomRepository(within.session),
            answers=core.answers,
            files=files,
            signer=self.signer,
            count_changed=count_changed,
        )
        self.open_privacy = core.open(self._privacy)
        self.open_holds = core.open(self._holds)

    async def is_room_held(self, client_id: UUID, room_id: UUID) -> bool:
        """Tell whether a legal hold keeps a room, also a deleted one."""
        async with self._core.database.transaction() as session:
            return await HoldRepository(session).keeps_room(client_id, room_id)

    def _privacy(self, work: UnitOfWork) -> PrivacyService:
        families = KeyFamilyRepository(work.session)

        async def end_keys(user: User) -> int:
            return len(await families.revoke(user.client_id, user.id, why="erased"))

        async def later(client_id: UUID, erasure_id: UUID) -> None:
            await _plan_erasure(work, client_id, erasure_id, str(erasure_id))

        return PrivacyService(
            privacy=PrivacyRepository(work.session),
            holds=HoldRepository(work.session),
            users=self._users(work),
            recorder=work,
            end_keys=end_keys,
            later=later,
            kick=self._kick,
        )

    def _holds(self, work: UnitOfWork) -> HoldService:
        async def purge(client_id: UUID, room_id: UUID, name: str) -> None:
            payload = orjson.dumps({"room_id": str(room_id)}).decode()
            await jobs.plan(
                work.session, PURGE_ROOM, dedupe=name, client_id=client_id, payload=payload
            )

        return HoldService(
            holds=HoldRepository(work.session),
            users=self._users(work),
            rooms=RoomRepository(work.session),
            recorder=work,
            purge=purge,
            erase=partial(_plan_erasure, work),
        )


async def _plan_erasure(work: UnitOfWork, client_id: UUID, erasure_id: UUID, name: str) -> None:
    await jobs.plan(
        work.session,
        ERASE_USER,
        dedupe=name,
        client_id=client_id,
        payload=orjson.dumps({"erasure_id": str(erasure_id)}).decode(),
        # Whatever was under way when the keys ended has ended by then, too.
        delay_s=ERASE_AFTER_S,
    )


def _itself(work: UnitOfWork) -> UnitOfWork:
    return work
