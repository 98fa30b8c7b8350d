"""What callers may ask for: an erasure and its report, and to look at the audit log."""

import base64
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import orjson

from chatserver.infra.audit import actor_name
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.privacy.errors import (
    AuditCursorInvalidError,
    ErasureNotFoundError,
    LegalHoldActiveError,
)
from chatserver.privacy.holds import HoldRepository
from chatserver.privacy.models import Erasure
from chatserver.privacy.repository import PrivacyRepository
from chatserver.privacy.schemas import (
    AuditEntry,
    AuditList,
    AuditPage,
    ErasureOut,
    PersonPath,
    Signature,
)
from chatserver.realtime.ports import Closing
from chatserver.users.errors import UserNotFoundError
from chatserver.users.models import User
from chatserver.users.service import UserService


class PrivacyService:
    """`end_keys` ends every key of a person; `later` plans the job that does the rest."""

    def __init__(
        self,
        *,
        privacy: PrivacyRepository,
        holds: HoldRepository,
        users: UserService,
        recorder: Recorder,
        end_keys: Callable[[User], Awaitable[int]],
        later: Callable[[UUID, UUID], Awaitable[None]],
        kick: Callable[[Closing], None],
    ) -> None:
        self._privacy = privacy
        self._holds = holds
        self._users = users
        self._recorder = recorder
        self._end_keys = end_keys
        self._later = later
        self._kick = kick

    async def erase(self, principal: Principal, command: PersonPath) -> ErasureOut:
        """End a person's access now, and have the rest erased. Asking again changes nothing.

        Raises:
            UserNotFoundError: there is none; also one that was erased already.
            LegalHoldActiveError: the person, or a room the person wrote in, must be kept.
        """
        try:
            user = await self._users.locked(principal, command.external_id)
        except UserNotFoundError:
            under_way = await self._privacy.latest(principal.client_id, command.external_id)
            if under_way is None or under_way.state == "done":
                raise
            # Planned already, unless its job was given up: then this begins it again.
            await self._later(principal.client_id, under_way.id)
            return shown(under_way)
        holds = await self._holds.touching(user.client_id, user.id)
        if holds:
            raise LegalHoldActiveError(holds=[str(it) for it in holds])
        await self._users.revoke(user)
        ended = await self._end_keys(user)
        await self._privacy.hide(user.id)
        erasure = await self._privacy.add(
            Erasure(
                id=uuid7(),
                client_id=user.client_id,
                user_id=user.id,
                external_id=user.external_id,
                requested_by=actor_name(principal),
            )
        )
        await self._later(user.client_id, erasure.id)
        self._recorder.audit(
            user.client_id, principal, "user.erase", f"erasure:{erasure.id}", keys_ended=ended
        )
        closing = Closing(code="auth.revoked", reason="The user was erased.", user_id=user.id)
        self._recorder.after_commit(partial(self._kick, closing))
        return shown(erasure)

    async def report(self, principal: Principal, command: PersonPath) -> ErasureOut:
        """Show the latest erasure of somebody of this name.

        Raises:
            ErasureNotFoundError: there was none.
        """
        found = await self._privacy.latest(principal.client_id, command.external_id)
        if found is None:
            raise ErasureNotFoundError
        return shown(found)

    async def audit(self, principal: Principal, command: AuditList) -> AuditPage:
        """Show a page of the client's audit log.

        Raises:
            AuditCursorInvalidError: the cursor was made up.
        """
        rows = await self._privacy.audit(
            principal.client_id,
            action=command.action,
            subject=command.subject,
            since=command.from_,
            until=command.to,
            before=_read(command.cursor),
            limit=command.limit + 1,
        )
        has_more = len(rows) > command.limit
        rows = rows[: command.limit]
        items = [
            AuditEntry(
                id=row.id,
                at=row.at,
                actor=row.actor,
                action=row.action,
                subject=row.subject,
                address=row.address,
                details=row.details,
            )
            for row in rows
        ]
        return AuditPage(items=items, next_cursor=_cursor(rows[-1].id) if has_more else None)


def shown(erasure: Erasure) -> ErasureOut:
    signature = None
    if erasure.signature is not None and erasure.signed_by is not None:
        signature = Signature(
            public_key=base64.b64encode(erasure.signed_by).decode(),
            value=base64.b64encode(erasure.signature).decode(),
        )
    return ErasureOut(
        id=erasure.id,
        user_id=erasure.external_id,
        state=erasure.state,
        requested_at=erasure.requested_at,
        completed_at=erasure.completed_at,
        report=None if erasure.report is None else orjson.loads(erasure.report),
        signature=signature,
    )


def _cursor(before: int) -> str:
    # Not sealed: it says where in the own log to go on, and lets nobody see another's.
    return base64.urlsafe_b64encode(b"a%d" % before).decode().rstrip("=")


def _read(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        number = int(text.removeprefix("a"))
    except ValueError as error:
        raise AuditCursorInvalidError from error
    if not text.startswith("a") or not 0 < number < 1 << 63:
        raise AuditCursorInvalidError
    return number
