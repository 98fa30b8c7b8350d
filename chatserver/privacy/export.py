"""Everything that is stored of a person, as lines; read page by page while it is sent."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final
from uuid import UUID

import orjson

from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Lines
from chatserver.privacy import asked, inbound, told
from chatserver.privacy.repository import PrivacyRepository
from chatserver.privacy.schemas import PersonPath
from chatserver.users.models import User
from chatserver.users.service import UserService

ROOMS: Final = 500
MESSAGES: Final = 500


class Exporter:
    def __init__(
        self, open_work: Open[UnitOfWork], users: Callable[[UnitOfWork], UserService]
    ) -> None:
        self._open_work = open_work
        self._users = users

    async def export(self, principal: Principal, command: PersonPath) -> Lines:
        """Begin an export: all that is stored of a person, one JSON object a line.

        Raises:
            UserNotFoundError: unknown, or not the caller's own.
        """
        async with self._open_work() as work:
            user = await self._users(work).locked(principal, command.external_id)
            privacy = PrivacyRepository(work.session)
            keys = await privacy.keys(user.client_id, user.id)
            seats = await privacy.seats(user.client_id, user.id)
            files = await privacy.files(user.client_id, user.id)
            bans = await privacy.bans(user.client_id, user.id)
            others = await asked.everything(work.session, user.client_id, user.id, user.external_id)
            work.audit(user.client_id, principal, "user.export", f"user:{user.external_id}")
        small = {"key": keys, "membership": seats, "ban": bans, "file": files}
        for kind, members in others:
            small.setdefault(kind, []).append(members)
        return Lines.of(self._lines(user, small, is_own=principal.is_user))

    async def _lines(
        self, user: User, small: dict[str, list[dict[str, Any]]], *, is_own: bool
    ) -> AsyncIterator[bytes]:
        yield _line(
            "profile",
            {
                "user_id": user.external_id,
                "display_name": user.display_name,
                "avatar_url": user.avatar_url,
                "metadata": user.details,
                "created_at": user.created_at,
                "updated_at": user.updated_at,
            },
        )
        for kind, rows in small.items():
            for row in rows:
                yield _line(kind, row)
        async for line in self._reactions(user):
            yield line
        async for line in self._told(user):
            yield line
        async for line in self._said_by_vendors(user, with_body=not is_own):
            yield line
        after: UUID | None = None
        while True:
            async with self._open_work() as work:
                page = await PrivacyRepository(work.session).rooms(user.client_id, after, ROOMS)
            if not page:
                return
            ids = [room_id for room_id, _ in page]
            async for line in self._messages(user, ids):
                yield line
            after = ids[-1]

    async def _told(self, user: User) -> AsyncIterator[bytes]:
        async with self._open_work() as work:
            chosen = await told.choices(work.session, user.client_id, user.id)
        for kind, members in chosen:
            yield _line(kind, members)
        after = UUID(int=0)
        found: list[dict[str, Any]] = [{}] * told.PAGE
        while len(found) == told.PAGE:
            async with self._open_work() as work:
                found = await told.notifications(work.session, user.client_id, user.id, after)
            for members in found:
                yield _line("notification", members)
            after = found[-1]["id"] if found else after
        after, found = UUID(int=0), [{}] * told.PAGE
        while len(found) == told.PAGE:
            async with self._open_work() as work:
                found = await told.deliveries(work.session, user.client_id, user.external_id, after)
            for members in found:
                yield _line("delivery", members)
            after = found[-1]["id"] if found else after

    async def _said_by_vendors(self, user: User, *, with_body: bool) -> AsyncIterator[bytes]:
        after: UUID | None = inbound.FIRST
        while after is not None:
            async with self._open_work() as work:
                after, found = await inbound.read_page(
                    work.session, user.client_id, user.external_id, after, with_body=with_body
                )
            for members in found:
                yield _line("webhook_event", members)

    async def _messages(self, user: User, rooms: list[UUID]) -> AsyncIterator[bytes]:
        place: tuple[UUID | None, int] = (None, 0)
        while True:
            async with self._open_work() as work:
                found = await PrivacyRepository(work.session).sent(
                    user.client_id, user.id, rooms, after=place, limit=MESSAGES
                )
            for message in found:
                message["metadata"] = message.pop("details")
                yield _line("message", message)
            edited = [message["id"] for message in found if message["edited_at"] is not None]
            if edited:
                async with self._open_work() as work:
                    past = await PrivacyRepository(work.session).past_versions(edited)
                for version in past:
                    yield _line("past_version", version)
            if len(found) < MESSAGES:
                return
            place = (found[-1]["room_id"], found[-1]["seq"])

    async def _reactions(self, user: User) -> AsyncIterator[bytes]:
        place: tuple[UUID | None, str] = (None, "")
        while True:
            async with self._open_work() as work:
                found = await PrivacyRepository(work.session).reactions(
                    user.client_id, user.id, after=place, limit=MESSAGES
                )
            for reaction in found:
                yield _line("reaction", reaction)
            if len(found) < MESSAGES:
                return
            place = (found[-1]["message_id"], found[-1]["emoji"])


def _line(kind: str, members: dict[str, Any]) -> bytes:
    written = {name: _plain(value) for name, value in members.items()}
    return orjson.dumps({"type": kind, **written}) + b"\n"


def _plain(value: Any) -> Any:  # noqa: ANN401 - a column's value
    if hasattr(value, "tzinfo"):
        return rfc3339(value)
    return str(value) if isinstance(value, UUID) else value
