"""REST: a person's rights, and the audit log."""

from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import Lines
from chatserver.privacy.errors import (
    AuditCursorInvalidError,
    ErasureNotFoundError,
    LegalHoldActiveError,
    LegalHoldNotFoundError,
)
from chatserver.privacy.events import ErasedData
from chatserver.privacy.export import Exporter
from chatserver.privacy.holds import HoldService
from chatserver.privacy.schemas import (
    AuditList,
    AuditPage,
    ErasureOut,
    HoldList,
    HoldOut,
    HoldPath,
    PersonPath,
    PlaceHold,
)
from chatserver.privacy.service import PrivacyService
from chatserver.rooms.errors import RoomNotFoundError
from chatserver.transport.registry import MASTER, FactSpec, Route, operation
from chatserver.users.errors import UserNotFoundError

FACTS: Final = (
    FactSpec(
        "messages.erased",
        ("/chat",),
        ErasedData,
        sequenced=True,
        summary="A person was erased: purge all of the person's messages up to `up_to_seq`.",
    ),
)


class PrivacyHttp:
    def __init__(self, privacy: Open[PrivacyService], exporter: Exporter) -> None:
        self._privacy = privacy
        self._exporter = exporter

    @operation(
        "user.erase",
        PersonPath,
        ErasureOut,
        callers=MASTER,
        errors=(UserNotFoundError, LegalHoldActiveError),
    )
    async def erase(self, principal: Principal, command: PersonPath) -> ErasureOut:
        """Erase a user.

        Keys and sockets end at once, and the profile is gone; the rest follows in the background.
        Every room concerned is told by one `messages.erased`, after which nothing of the person
        can be read there. The external id is free again when the report says `done`.
        """
        async with self._privacy() as privacy:
            return await privacy.erase(principal, command)

    @operation(
        "erasure.get", PersonPath, ErasureOut, callers=MASTER, errors=(ErasureNotFoundError,)
    )
    async def report(self, principal: Principal, command: PersonPath) -> ErasureOut:
        """Show how far the latest erasure of a user is; once it is `done`, the signed report."""
        async with self._privacy() as privacy:
            return await privacy.report(principal, command)

    @operation(
        "user.export",
        PersonPath,
        Lines,
        scope=Scope.PROFILE_READ,
        errors=(UserNotFoundError,),
    )
    async def export(self, principal: Principal, command: PersonPath) -> Lines:
        """Export what is stored of a user, as NDJSON.

        Lines of `type` `profile`, `key` (without secrets), `membership`, `document` (handed in by
        the user), `search` and `message`. A scoped key exports its own user alone.
        """
        return await self._exporter.export(principal, command)

    @operation(
        "audit.list", AuditList, AuditPage, callers=MASTER, errors=(AuditCursorInvalidError,)
    )
    async def audit(self, principal: Principal, command: AuditList) -> AuditPage:
        """Read who did what to keys, members, settings and erasures, the newest first."""
        async with self._privacy() as privacy:
            return await privacy.audit(principal, command)


class HoldsHttp:
    def __init__(self, holds: Open[HoldService]) -> None:
        self._holds = holds

    @operation(
        "legal_hold.place",
        PlaceHold,
        HoldOut,
        callers=MASTER,
        errors=(UserNotFoundError, RoomNotFoundError),
    )
    async def place(self, principal: Principal, command: PlaceHold) -> HoldOut:
        """Keep a user or a room, whatever is asked for and however old it is.

        A user under hold can't be erased; nothing in the rooms the user is in or wrote in ages
        out. A room under hold keeps its messages, also when it is deleted, and nobody who is in it
        or wrote in it can be erased. What people edit and delete themselves is not kept.
        """
        async with self._holds() as holds:
            return await holds.place(principal, command)

    @operation("legal_hold.list", HoldList, Page[HoldOut], callers=MASTER)
    async def list(self, principal: Principal, command: HoldList) -> Page[HoldOut]:
        """List the client's legal holds, the newest first, those that were released too."""
        async with self._holds() as holds:
            return await holds.list(principal, command)

    @operation(
        "legal_hold.release", HoldPath, HoldOut, callers=MASTER, errors=(LegalHoldNotFoundError,)
    )
    async def release(self, principal: Principal, command: HoldPath) -> HoldOut:
        """End a legal hold.

        What it alone had stopped goes on: the removal of deleted rooms, an erasure that was under
        way, retention. An erasure that was refused has to be asked for again.
        """
        async with self._holds() as holds:
            return await holds.release(principal, command)


_USER: Final = "/users/{external_id}"
ROUTES: Final = (
    Route(method="DELETE", path=_USER, operation="user.erase", status=202),
    Route(method="GET", path=_USER + "/erasure", operation="erasure.get"),
    Route(method="GET", path=_USER + "/export", operation="user.export"),
    Route(method="GET", path="/client/audit", operation="audit.list"),
    Route(method="POST", path="/client/legal-holds", operation="legal_hold.place", status=201),
    Route(method="GET", path="/client/legal-holds", operation="legal_hold.list"),
    Route(method="DELETE", path="/client/legal-holds/{id}", operation="legal_hold.release"),
)
