"""How often whom may do what: which buckets a call empties, and what a caller is told of them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal, TypeAlias
from uuid import UUID

import structlog

from chatserver.infra.expiring import Expiring
from chatserver.infra.quotas import Quotas, Use
from chatserver.infra.rate_limits import RateLimiter
from chatserver.infra.secrets import MASTER, SCOPED, fingerprint, parse_key
from chatserver.infra.token_buckets import Bucket, Level, Refusal
from chatserver.kernel.clock import rfc3339, utc_now
from chatserver.kernel.errors import DomainError, RateLimitedError
from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.errors import QuotaExceededError
from chatserver.transport.numbers import Book, Numbers

log = structlog.get_logger(__name__)

Door: TypeAlias = Literal["commands", "requests"]

# What writes a message, and what brings somebody into a room, by whichever door.
MESSAGES: Final = frozenset({"message.send", "message.post", "assistant.ask", "session.message"})
JOINS: Final = frozenset({"room.join", "room.watch", "member.put"})
# What moves a pointer: clients are to say it once in a while, not for each line they scroll by.
READS: Final = frozenset({"read.mark", "read.unmark"})
_ALSO: Final = {
    **dict.fromkeys(MESSAGES, ("messages",)),
    **dict.fromkeys(JOINS, ("joins",)),
    **dict.fromkeys(READS, ("reads",)),
}
# Those that the client as a whole is held to as well.
_SHARED: Final = frozenset({"commands", "requests", "messages"})
# A user may have several devices, each with a key of its own.
USER_FACTOR: Final = 5
REMEMBERED: Final = 10_000
PLANS: Final = 50_000
GUESS: Final = "auth.invalid"
KEYS: Final = (MASTER, SCOPED)
PROVEN_S: Final = 600.0


@lru_cache(maxsize=REMEMBERED)
def network_of(address: str) -> str:
    """Name whom an address belongs to: an IPv6 network of 64 bits has one owner."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)


@dataclass(frozen=True, slots=True)
class Told:
    """What a request's answer says of limits; asked when it is written."""

    levels: Callable[[], list[Level]]


class Gate:
    """Lets calls pass, or refuses them. `enabled` false: lets everything pass, and still tells."""

    def __init__(
        self, limiter: RateLimiter, book: Book, quotas: Quotas, *, enabled: bool = True
    ) -> None:
        self._limiter = limiter
        self._quotas = quotas
        self._enabled = enabled
        # Which buckets a call empties, remembered until the client's numbers change.
        self._plans: dict[tuple[object, ...], tuple[Numbers, list[Bucket]]] = {}
        self._proven: Expiring[bytes, bool] = Expiring(size=REMEMBERED, ttl_s=PROVEN_S)
        self.book = book

    async def command(self, principal: Principal, name: str) -> None:
        """Count a command.

        Raises:
            RateLimitedError: one of the caller's buckets is empty.
            QuotaExceededError: the client's quota of messages is used up.
        """
        await self.spend(principal, self.buckets(principal, "commands", name), name)

    async def spend(self, principal: Principal, buckets: Sequence[Bucket], name: str) -> None:
        """Count a call in its buckets. See `command`."""
        if not self._enabled:
            return
        if name in MESSAGES:
            self._count(principal, "messages")
        if not self._limiter.take_now(buckets):
            refusal = await self._limiter.take(buckets)
            if refusal is not None:
                raise _limited(refusal)

    def buckets(self, principal: Principal, door: Door, name: str) -> list[Bucket]:
        """Give the buckets of a call, the caller's own first."""
        numbers = self.book.of(principal.client_id)
        also = _ALSO.get(name, ())
        plan = (principal.caller, principal.client_id, principal.user_id, principal.kid, door, also)
        planned = self._plans.get(plan)
        if planned is not None and planned[0] is numbers:
            return planned[1]
        if len(self._plans) >= PLANS:
            self._plans.clear()
        buckets = self._planned(principal, door, also, numbers)
        self._plans[plan] = (numbers, buckets)
        return buckets

    def _planned(
        self, principal: Principal, door: Door, also: tuple[str, ...], numbers: Numbers
    ) -> list[Bucket]:
        client = principal.client_id.hex
        bucket = partial(self._limiter.bucket, home=client)
        if principal.caller is not Caller.USER:
            # A server speaks for all users of its client: it shares the client's limits.
            names = [door, *(each for each in also if each == "messages")]
            return [bucket(numbers.policy(f"client-{each}"), client) for each in names]
        user = principal.user_id.hex
        key = _key_of(principal)
        found = []
        for each in (door, *also):
            found.append(bucket(numbers.policy(each), key))
            found.append(bucket(numbers.policy(f"user-{each}", USER_FACTOR, of=each), user))
            if each in _SHARED:
                found.append(bucket(numbers.policy(f"client-{each}"), client))
        return found

    async def connect(self, principal: Principal, address: str) -> None:
        """Count a new connection of a caller who was let in.

        Raises:
            RateLimitedError, QuotaExceededError: as `command`.
        """
        await self.book.load(principal.client_id)
        if not self._enabled:
            return
        numbers, client = self.book.of(principal.client_id), principal.client_id.hex
        bucket = partial(self._limiter.bucket, home=client)
        user = principal.user_id.hex
        key = _key_of(principal)
        arrivals = self.book.default.policy("address-connects")
        buckets = [
            bucket(numbers.policy("connects"), key),
            bucket(numbers.policy("user-connects", USER_FACTOR, of="connects"), user),
            bucket(numbers.policy("client-connects"), client),
            self._limiter.bucket(arrivals, network_of(address)),
        ]
        self._count(principal, "connections")
        if not self._limiter.take_now(buckets):
            refusal = await self._limiter.take(buckets)
            if refusal is not None:
                raise _limited(refusal)

    async def authenticate(
        self, token: str | None, address: str, check: Callable[[], Awaitable[Principal]]
    ) -> Principal:
        """Check a credential, unless too many were guessed from the same address.

        Only wrong credentials count, so that an expired key in a loop locks nobody out; and one
        that was good a while ago passes, so that a neighbour's guesses don't either.

        Raises:
            RateLimitedError: too many guesses.
            DomainError: what `check` says.
        """
        if not self._enabled or not token:
            return await check()
        name = fingerprint(token)
        if self._proven.get(name):
            return await check()
        buckets = self._guesses(token, address)
        if (refusal := self._limiter.refusing(buckets)) is not None:
            raise _limited(refusal, "Too many wrong credentials came from here.")
        try:
            principal = await check()
        except DomainError as error:
            if error.code == GUESS and (refusal := await self._limiter.take(buckets)) is not None:
                raise _limited(refusal, "Too many wrong credentials came from here.") from error
            raise
        self._proven.put(name, value=True)
        return principal

    def standing(self, address: str) -> list[Level]:
        """Tell the numbers of somebody of whom only the address is known."""
        policy = self.book.default.per_minute("address-failures")
        return self.levels([self._limiter.bucket(policy, network_of(address))])

    def levels(self, buckets: Sequence[Bucket]) -> list[Level]:
        return self._limiter.levels(buckets)

    async def usage(self, client_id: UUID) -> tuple[list[Level], list[Use], Numbers]:
        """Give the numbers that a client's calls are held to."""
        await self.book.load(client_id)
        numbers = self.book.of(client_id)
        names = ("requests", "commands", "messages", "connects")
        buckets = [
            self._limiter.bucket(numbers.policy(f"client-{name}"), client_id.hex) for name in names
        ]
        await self._limiter.look(buckets)
        uses = await self._quotas.uses(client_id, numbers.quotas)
        return self._limiter.levels(buckets), uses, numbers

    @property
    def is_enabled(self) -> bool:
        return self._enabled

    def _guesses(self, token: str, address: str) -> list[Bucket]:
        key = parse_key(token)
        if key is None and token.startswith(KEYS):
            return []  # a typo: its checksum is wrong, and nothing was looked up
        network, policy = network_of(address), self.book.default.per_minute
        buckets = [self._limiter.bucket(policy("address-failures"), network)]
        if key is not None:
            # A key's id is no secret: guesses from elsewhere must not lock its owner out.
            name = f"{key.kid}@{network}"
            buckets.append(self._limiter.bucket(policy("key-failures"), name, home=network))
        return buckets

    def _count(self, principal: Principal, metric: str) -> None:
        if principal.caller is Caller.OPERATOR:
            return
        limits = self.book.of(principal.client_id).quotas
        use = self._quotas.exceeded(principal.client_id, metric, limits)
        if use is not None:
            raise quota_exceeded(use)
        self._quotas.spend(principal.client_id, metric)


def _key_of(principal: Principal) -> str:
    # A JWT is no key: all tokens of a user share one limit, however many he is given.
    return principal.kid or principal.user_id.hex


def quota_exceeded(use: Use) -> QuotaExceededError:
    """Say that a client used up what it may use in an hour or on a day."""
    left = use.resets_at - utc_now()
    return QuotaExceededError(
        f"The client's quota of {use.metric} for this {use.window} is used up.",
        retry_after_ms=max(1, int(left.total_seconds() * 1000)),
        policy=f"{use.metric}-per-{use.window}",
        limit=use.limit,
        remaining=0,
        resets_at=rfc3339(use.resets_at),
    )


def _limited(refusal: Refusal, message: str = "") -> RateLimitedError:
    policy = refusal.policy
    return RateLimitedError(
        message,
        retry_after_ms=max(1, int(refusal.retry_after_s * 1000) + 1),
        policy=policy.name,
        limit=int(policy.burst),
        per_s=policy.rate,
        window_s=policy.window_s,
        remaining=0,
    )


def policy_field(levels: Sequence[Level]) -> str:
    """Write the `RateLimit-Policy` field (draft-ietf-httpapi-ratelimit-headers)."""
    return ", ".join(
        f'"{level.policy.name}";q={int(level.policy.burst)};w={level.policy.window_s}'
        for level in levels
    )


def limit_field(levels: Sequence[Level]) -> str:
    """Write the `RateLimit` field: what is left, and when all of it is back."""
    return ", ".join(
        f'"{level.policy.name}";r={level.remaining};t={level.full_in_s}' for level in levels
    )
