"""What rooms need of others."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID


class People(Protocol):
    """Where external ids become server ids."""

    async def find(
        self, client_id: UUID, external_ids: Sequence[str], *, field: str
    ) -> dict[str, UUID]:
        """Look users up; raise `user.not_found` with the places in `field` when one is unknown."""
        ...

    async def find_one(self, client_id: UUID, external_id: str, *, field: str) -> UUID:
        """Look one user up; raise `user.not_found` with `field` when unknown."""
        ...
