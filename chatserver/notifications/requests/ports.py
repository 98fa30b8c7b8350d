"""What notifications need of others."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from chatserver.notifications.requests.models import Item
from chatserver.notifications.requests.schemas import LimitOut


class Inbox(Protocol):
    """Where in-app notifications are kept, within this unit of work; it shows them after it."""

    async def keep(self, items: Sequence[Item]) -> None:
        """Put items into inboxes; raise `user.not_found` with the field of one who is unknown."""
        ...


class Reach(Protocol):
    """How people can be reached, and whether they want to be."""

    async def barred(
        self,
        client_id: UUID,
        asked: Sequence[tuple[str, str | None, str | None]],
        *,
        category: str | None,
        priority: str,
    ) -> list[str | None]:
        """Give for each (channel, person, address) why not, or None."""
        ...

    async def devices(self, client_id: UUID, people: Sequence[str]) -> dict[str, set[str]]:
        """Give the kinds of devices of some people, by external id; absent: they have none."""
        ...

    def name_address(self, client_id: UUID, channel: str, address: str) -> bytes:
        """Name an address without telling it: the same name here as in suppressions."""
        ...


class KeptFile(Protocol):
    """A file, as far as a mail that is to carry it is concerned."""

    @property
    def state(self) -> str: ...

    @property
    def size(self) -> int: ...


class Files(Protocol):
    """The client's files, which mails may carry."""

    async def files(
        self, client_id: UUID, ids: Sequence[UUID], *, reader: UUID | None
    ) -> Mapping[UUID, KeptFile]:
        """Give those that there are; `reader` None: the application, which may see all."""
        ...

    async def hold_files(
        self, client_id: UUID, ids: Sequence[UUID], *, until: datetime | None = None
    ) -> None:
        """Keep them from being removed until then."""
        ...


class Within(Inbox, Reach, Files, Protocol):
    """All of these within one unit of work."""


class Limits(Protocol):
    """The client's quotas of notifications."""

    async def __call__(self, client_id: UUID, count: int) -> list[LimitOut]:
        """Count some; raise `quota.exceeded` when there are too many."""
        ...
