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
        """Begin an export: a profile, keys, memberships, documents, searches and messages.

        Raises:
            UserNotFoundError: unknown, or not the caller's own.
        """
        async with self._open_work() as work:
            user = await self._users(work).locked(principal, command.external_id)
            privacy = PrivacyRepository(work.session)
            keys = await privacy.keys(user.client_id, user.id)
            seats = await privacy.seats(user.client_id, user.id)
            of_bots = await privacy.asked_of_bots(user.client_id, user.id)
            work.audit(user.client_id, principal, "user.export", f"user:{user.external_id}")
        return Lines.of(self._lines(user, keys, seats, of_bots))

    async def _lines(
        self,
        user: User,
        keys: list[dict[str, Any]],
        seats: list[dict[str, Any]],
        of_bots: list[tuple[str, dict[str, Any]]],
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
        for key in keys:
            yield _line("key", key)
        for seat in seats:
            yield _line("membership", seat)
        for kind, members in of_bots:
            yield _line(kind, members)
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
            if len(found) < MESSAGES:
                return
            place = (found[-1]["room_id"], found[-1]["seq"])


def _line(kind: str, members: dict[str, Any]) -> bytes:
    written = {name: _plain(value) for name, value in members.items()}
    return orjson.dumps({"type": kind, **written}) + b"\n"


def _plain(value: Any) -> Any:  # noqa: ANN401 - a column's value
    if hasattr(value, "tzinfo"):
        return rfc3339(value)
    return str(value) if isinstance(value, UUID) else value
