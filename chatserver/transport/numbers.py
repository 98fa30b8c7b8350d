"""Every client's own numbers: limits, quotas, how many connections, and what is announced of them.

Apart from `limits`, which holds callers to them: this is what is read and kept, not what is spent.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import UUID

import orjson

from chatserver.infra.token_buckets import Policy
from chatserver.kernel.errors import DomainError
from chatserver.realtime.census import Caps

Find: TypeAlias = Callable[[UUID], Awaitable[Mapping[str, Any]]]

FRESH_S: Final = 5.0
AGAIN_S: Final = 1.0
REMEMBERED: Final = 10_000


def caps_of(limits: Mapping[str, Any]) -> Caps:
    """Give how many connections there may be by these limits."""
    return Caps(
        per_user=limits["connections_per_user"],
        per_device=limits["connections_per_device"],
        # The same for all clients: nobody knows whose an address is before he has connected.
        per_address=limits["connections_per_address"],
        per_client=limits["connections_per_client"],
        offences=limits["violations_per_minute"],
    )


@dataclass(slots=True, eq=False)
class Numbers:
    """The limits of one client, and the policies made of them."""

    limits: Mapping[str, Any]
    quotas: Mapping[str, int | None]
    _policies: dict[str, Policy] = field(default_factory=dict)
    _announced: orjson.Fragment | None = None
    _caps: Caps | None = None

    @property
    def caps(self) -> Caps:
        """Give how many connections there may be."""
        if self._caps is None:
            self._caps = caps_of(self.limits)
        return self._caps

    def announced(self, more: Mapping[str, Any]) -> orjson.Fragment:
        """Give the limits and `more` as `session.ready` says them: written once, told very often.

        `more` is the same in all calls.
        """
        if self._announced is None:
            self._announced = orjson.Fragment(orjson.dumps({**self.limits, **more}))
        return self._announced

    def policy(self, name: str, factor: float = 1, *, of: str = "") -> Policy:
        """Give the policy `name`, whose numbers are those of `of` (or of its own name)."""
        found = self._policies.get(name)
        if found is None:
            source = (of or name).replace("-", "_")
            found = self._policies[name] = Policy(
                name,
                self.limits[f"{source}_per_s"] * factor,
                self.limits[f"{source}_burst"] * factor,
            )
        return found

    def per_minute(self, name: str) -> Policy:
        """Give a policy that counts by the minute."""
        found = self._policies.get(name)
        if found is None:
            most = self.limits[f"{name.replace('-', '_')}_per_minute"]
            found = self._policies[name] = Policy(name, most / 60, most)
        return found


class Book:
    """Every client's numbers: the server's defaults and what the client has instead.

    Read from PostgreSQL at a client's first call and again every 5 s while it calls; while
    PostgreSQL is away the old ones count.
    """

    def __init__(
        self, find: Find, *, limits: Mapping[str, Any], quotas: Mapping[str, int | None]
    ) -> None:
        self._find = find
        self.default = Numbers(limits, quotas)
        self._known: dict[UUID, tuple[float, Numbers]] = {}
        self._reading: dict[UUID, asyncio.Task[None]] = {}

    def of(self, client_id: UUID) -> Numbers:
        """Give what is known, without waiting."""
        found = self._known.get(client_id)
        if found is None:
            return self.default
        if found[0] < time.monotonic():
            _ = self._read(client_id)
        return found[1]

    async def load(self, client_id: UUID) -> None:
        """Wait until a client's numbers are known and fresh, or can't be."""
        found = self._known.get(client_id)
        if found is None or found[0] < time.monotonic():
            await asyncio.shield(self._read(client_id))

    def forget(self, client_id: UUID) -> None:
        """Read a client's numbers again at its next call."""
        known = self._known.get(client_id)
        if known is not None:
            self._known[client_id] = (0.0, known[1])

    def _read(self, client_id: UUID) -> asyncio.Task[None]:
        running = self._reading.get(client_id)
        if running is None:
            running = asyncio.get_running_loop().create_task(self._read_alone(client_id))
            self._reading[client_id] = running
        return running

    async def _read_alone(self, client_id: UUID) -> None:
        try:
            found = await self._find(client_id)
        except DomainError:
            if client_id in self._known:
                self._known[client_id] = (time.monotonic() + AGAIN_S, self._known[client_id][1])
            return
        finally:
            del self._reading[client_id]
        limits = {**self.default.limits, **found.get("limits", {})}
        quotas = {**self.default.quotas, **found.get("quotas", {})}
        before = self._known.get(client_id)
        if before is not None and (before[1].limits, before[1].quotas) == (limits, quotas):
            numbers = before[1]
        else:
            numbers = Numbers(limits, quotas)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[client_id] = (time.monotonic() + FRESH_S, numbers)
