"""What notifications need of others."""

from collections.abc import Sequence
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


class Limits(Protocol):
    """The client's quotas of notifications."""

    async def __call__(self, client_id: UUID, count: int) -> list[LimitOut]:
        """Count some; raise `quota.exceeded` when there are too many."""
        ...
