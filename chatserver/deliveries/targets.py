"""Where deliveries go, and how well that is: troubles are noted, told, and got over."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from chatserver.deliveries.models import Claim, Sent, Target
from chatserver.deliveries.policies import Change, after_failure, after_success
from chatserver.deliveries.repository import DeliveryRepository
from chatserver.infra.unit_of_work import Recorder

RELEASED: Final = 1000


class TargetService:
    """`wake` tells the workers to look; `announce` tells a client of a change of a target.

    `announce` is given the channel, the client, the target, and what is told of which change.
    """

    def __init__(
        self,
        *,
        deliveries: DeliveryRepository,
        recorder: Recorder,
        wake: Callable[[], None],
        announce: Callable[[str, UUID, UUID, str, Change], Awaitable[None]],
    ) -> None:
        self._deliveries = deliveries
        self._recorder = recorder
        self._wake = wake
        self._announce = announce

    def add(self, target: Target) -> None:
        self._deliveries.add_target(target)

    async def find(self, client_id: UUID, ids: Sequence[UUID]) -> dict[UUID, Target]:
        return await self._deliveries.targets(client_id, ids)

    async def limit(
        self, client_id: UUID, target_id: UUID, *, concurrency: int, rate_per_s: float | None
    ) -> None:
        await self._deliveries.update_target(
            client_id, target_id, concurrency=concurrency, rate_per_s=rate_per_s
        )

    async def end(self, client_id: UUID, target_id: UUID) -> None:
        """Nothing goes there any more; what waits is cancelled soon."""
        await self._deliveries.update_target(client_id, target_id, state="deleted", reason=None)

    async def heal(
        self, client_id: UUID, channel: str, target_id: UUID, *, is_new: bool = False
    ) -> None:
        """Let a target begin anew, whatever was the matter with it: it was mended by hand.

        `is_new`: it is another one now, and was never seen to take anything.
        """
        health = await self._deliveries.lock_health(target_id)
        if health is None or health.state == "deleted":
            return
        was_stopped = health.state in ("paused", "disabled")
        change = Change(state="active", open_s=0.0, is_draining=was_stopped)
        await self._deliveries.change(target_id, change, is_well=False)
        values: dict[str, Any] = {"warned_at": None}
        if is_new:
            values["is_proven"] = False
        await self._deliveries.update_target(client_id, target_id, **values)
        await self._deliveries.release(channel, target_id, limit=RELEASED)
        self._recorder.after_commit(self._wake)

    async def failed(
        self, claim: Claim, channel: str, sent: Sent, *, is_flapping: bool, spread: float
    ) -> Change | None:
        """Note what a failed try means for its target; what became of that."""
        health = await self._deliveries.lock_health(claim.target_id)
        if health is None:
            return None
        change = after_failure(
            health, sent, is_probe=claim.is_probe, is_flapping=is_flapping, spread=spread
        )
        await self._apply(claim, channel, change, is_well=False)
        return change

    async def succeeded(self, claim: Claim, channel: str) -> Change | None:
        """Note that a target takes things again; what became of it."""
        health = await self._deliveries.lock_health(claim.target_id)
        if health is None:
            return None
        change = after_success(health)
        if health.state == "paused":
            await self._deliveries.release(channel, claim.target_id, limit=RELEASED)
        await self._apply(claim, channel, change, is_well=change.state == "active")
        return change

    async def _apply(self, claim: Claim, channel: str, change: Change, *, is_well: bool) -> None:
        await self._deliveries.change(claim.target_id, change, is_well=is_well)
        for told in change.told:
            await self._announce(channel, claim.client_id, claim.target_id, told, change)
