"""What a lane of deliveries is given: the rows, how they are sent, who follows how it goes."""

from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import Verdict
from chatserver.deliveries.queue import Ended


class Queue(Protocol):
    """The rows."""

    async def claim(
        self, channel: str, *, limit: int, after: UUID, full: Sequence[UUID]
    ) -> list[Claim]: ...

    async def record(self, ended: Sequence[Ended]) -> list[bool]: ...

    async def give_back(self, claims: Sequence[Claim]) -> None: ...

    async def take_back(self) -> int: ...

    async def settle(self) -> int: ...


class Sender(Protocol):
    """Who knows how a channel's deliveries are sent."""

    async def load(self, claims: Sequence[Claim]) -> Sequence[Any]:
        """Read what some deliveries say, in their order."""
        ...

    async def send(self, claim: Claim, loaded: Any) -> Sent:  # noqa: ANN401 - what `load` gave
        """Send one; what goes wrong is an outcome."""
        ...


class Notes(Protocol):
    """Who follows how well targets are."""

    async def failed(self, claim: Claim, sent: Sent, *, is_flapping: bool) -> bool:
        """Note a failure. True: nothing more is to be sent there for now."""
        ...

    async def succeeded(self, claim: Claim) -> None:
        """Note that a target that was not well took something."""
        ...

    async def lost(self, claim: Claim, sent: Sent) -> None:
        """Hear that a delivery came to an end without having arrived, and how its last try went."""
        ...

    async def pass_on(self) -> bool:
        """Give what waits for a stopped target to others, where there are some; True: it did."""
        ...

    async def gave_back(self, target_id: UUID) -> None:
        """Hear that what was held for a stopped target waits again: somebody else may take it."""
        ...


class Judge(Protocol):
    """Decides what follows a try."""

    def __call__(self, claim: Claim, sent: Sent, *, spread: float) -> Verdict: ...


class Cut(Protocol):
    """Decides what becomes of a delivery whose try this process had to cut off."""

    def __call__(self, claim: Claim, loaded: Any, /) -> Verdict: ...  # noqa: ANN401 - what `load` gave
