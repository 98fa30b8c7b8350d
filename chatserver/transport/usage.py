"""What a client used of its limits and quotas: the limiter's own numbers."""

from collections.abc import Callable
from typing import Any, Final

from chatserver.infra.quotas import Use
from chatserver.infra.token_buckets import Level
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Answer, Request, Timestamp
from chatserver.transport.limits import Gate
from chatserver.transport.registry import MASTER, Route, operation


class AskUsage(Request):
    """A request that says nothing beyond who sends it."""


class BucketOut(Answer):
    """A bucket that all of the client's callers share: `limit` at once, `per_s` a second."""

    policy: str
    limit: int
    per_s: float
    window_s: int
    remaining: int
    full_in_s: int


class QuotaOut(Answer):
    """What is used of a quota; without one, `limit` and `left` are null."""

    metric: str
    window: str
    limit: int | None
    used: int
    left: int | None
    resets_at: Timestamp


class ConnectionsOut(Answer):
    limit: int
    used: int


class UsageOut(Answer):
    """`limits` are those that the client's keys are held to, overrides included."""

    enforced: bool
    limits: dict[str, Any]
    buckets: list[BucketOut]
    quotas: list[QuotaOut]
    connections: ConnectionsOut


class UsageHttp:
    def __init__(self, gate: Gate, connections: Callable[[Principal], int]) -> None:
        self._gate = gate
        self._connections = connections

    @operation("client.usage", AskUsage, UsageOut, callers=MASTER)
    async def usage(self, principal: Principal, _: AskUsage) -> UsageOut:
        """Show what the own client used of its limits and quotas.

        These are the numbers that calls are held to: what is left in the buckets right now, what
        was counted in this hour and on this day (UTC), and how many connections are open.
        """
        levels, uses, numbers = await self._gate.usage(principal.client_id)
        return UsageOut(
            enforced=self._gate.is_enabled,
            limits=dict(numbers.limits),
            buckets=[_bucket(level) for level in levels],
            quotas=[_quota(use) for use in uses],
            connections=ConnectionsOut(
                limit=int(numbers.limits["connections_per_client"]),
                used=self._connections(principal),
            ),
        )


def _bucket(level: Level) -> BucketOut:
    policy = level.policy
    return BucketOut(
        policy=policy.name,
        limit=int(policy.burst),
        per_s=policy.rate,
        window_s=policy.window_s,
        remaining=level.remaining,
        full_in_s=level.full_in_s,
    )


def _quota(use: Use) -> QuotaOut:
    return QuotaOut(
        metric=use.metric,
        window=use.window,
        limit=use.limit,
        used=use.used,
        left=use.left,
        resets_at=use.resets_at,
    )


ROUTES: Final = (Route(method="GET", path="/client/usage", operation="client.usage"),)
