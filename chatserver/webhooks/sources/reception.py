"""Takes requests from outside: is it signed, did it come before, and then it is kept.

Whoever is not let in learns nothing: an unknown client, an unknown source and a wrong signature
cost the same work, and are answered at the same moment after the request began.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID
from zlib import crc32

import orjson
import structlog

from chatserver.infra.expiring import Expiring
from chatserver.infra.secrets import SecretBox, UnreadableSecretError
from chatserver.infra.token_buckets import Policy
from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.kernel.tasks import end
from chatserver.webhooks.sources.arrivals import Arrival, Kept
from chatserver.webhooks.sources.claims import Incoming, Scheme, Signing
from chatserver.webhooks.sources.diagnosis import diagnose
from chatserver.webhooks.sources.errors import InboundRefusedError, InboundTooLateError
from chatserver.webhooks.sources.models import place_of_secret
from chatserver.webhooks.sources.payloads import Document, as_text, payload_of, select
from chatserver.webhooks.sources.repository import KeptSecret, SourceRepository, Taker
from chatserver.webhooks.sources.rules import MOST_HOPS
from chatserver.webhooks.sources.signatures import (
    Verdict,
    content_id,
    key_of,
    short_id,
    verify,
)

log = structlog.get_logger()

# A refusal is answered this long after the request began, whatever was looked at.
REFUSED_AFTER_S: Final = 0.05
# Before anybody is known: by the path that is asked for and by who asks.
STRANGERS: Final = Policy("inbound", 50, 500)
PATHS: Final = 256
# Of a source's refusals so many are explained in a window; the others are counted.
EXPLAINED: Final = 10
WINDOW_S: Final = 20.0
MOST_DIAGNOSES: Final = 2
MOST_HEADERS: Final = 64
LONGEST_HEADER: Final = 2048
# What rules need not see, and rows should not keep.
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-api-key", "x-forwarded-for"}
)
_HOPS: Final = re.compile(r"\Achatserver;\s*hops=([0-9]{1,4})\Z")
_CHALLENGE: Final = "url_verification"
# Counts a request of a subject; raises RateLimitedError.
Count: TypeAlias = Callable[[Policy, str], Awaitable[None]]


class Sources(Protocol):
    async def find(self, client_slug: str, slug: str) -> Taker | None: ...


class Keeps(Protocol):
    async def keep(self, event: Arrival) -> Kept | None: ...


@dataclass(frozen=True, slots=True)
class Taken:
    """What a request became. `challenge`: only that is answered, nothing was kept."""

    id: UUID | None
    duplicate: bool = False
    challenge: str | None = None


@dataclass(slots=True)
class _Tally:
    """Refusals of a source in this process, in the current window."""

    explained: int = 0
    untold: int = 0


class Reception:
    """What the inbound door asks."""

    def __init__(
        self,
        *,
        lookup: Sources,
        arrivals: Keeps,
        open_sources: Open[SourceRepository],
        ring: Callable[[], None],
        box: SecretBox,
        count: Count,
        clock: Clock,
    ) -> None:
        self._lookup = lookup
        self._arrivals = arrivals
        self._open_sources = open_sources
        self._ring = ring
        self._box = box
        self._count = count
        self._clock = clock
        self._tallies: Expiring[UUID, _Tally] = Expiring(size=10_000, ttl_s=WINDOW_S)
        self._diagnoses: set[asyncio.Task[None]] = set()
        # Stands where a source is missing, so that looking for one that isn't there costs as much.
        self._nobody = _stand_in(box)

    async def take(self, client_slug: str, slug: str, incoming: Incoming, *, sender: str) -> Taken:
        """Check a request and keep it; when this returns, it is committed.

        Raises:
            InboundRefusedError: no such client, no such source, or not signed by one of its
                secrets; never said which.
            InboundTooLateError: signed, but so long ago that repeating it can't help.
            RateLimitedError: too many came.
            UnavailableError: it can't be checked or kept right now.
        """
        began = time.monotonic()
        await self._count(STRANGERS, _stranger(client_slug, slug, sender))
        found = await self._lookup.find(client_slug, slug)
        taker = found or self._nobody
        live, _ = self._opened(taker)
        scheme, signing = Scheme(taker.scheme), Signing.of(taker.signing)
        if taker.url is not None:
            incoming = Incoming(incoming.headers, incoming.body, taker.url)
        verdict = verify(
            scheme,
            signing,
            [key for _, key, _ in live],
            incoming,
            now=self._clock().timestamp(),
            tolerance_s=taker.tolerance_s,
        )
        if found is None or not verdict.is_good:
            if found is not None:
                self._explain(found, scheme, signing, incoming, verdict)
                if scheme is Scheme.MAILGUN and found.was_verified and verdict.matched is not None:
                    # 406 ends Mailgun's repeats. Only who has the secret gets to see it.
                    raise InboundTooLateError
            await asyncio.sleep(max(0.0, began + REFUSED_AFTER_S - time.monotonic()))
            raise InboundRefusedError
        await self._count(
            Policy("inbound-source", found.rate_per_s, found.rate_burst), found.id.hex
        )
        if scheme is Scheme.SLACK and (challenge := _challenge(incoming.body)) is not None:
            return Taken(None, challenge=challenge)
        assert verdict.matched is not None  # noqa: S101 - a good verdict has a secret
        return await self._keep(found, incoming, verdict, live[verdict.matched][0].hint)

    async def stop(self) -> None:
        """Give up explanations that are under way."""
        await end(*self._diagnoses)

    async def _keep(self, taker: Taker, incoming: Incoming, verdict: Verdict, hint: str) -> Taken:
        headers = kept_headers(incoming.headers)
        hops = hops_of(incoming.headers)
        name = external_id(taker, incoming, verdict)
        event = Arrival(
            client_id=taker.client_id,
            source_id=taker.id,
            external_id=name,
            headers=headers,
            body=incoming.body,
            secret_hint=hint,
            hops=hops,
            status="received" if hops < MOST_HOPS else "looped",
        )
        kept = await self._arrivals.keep(event)
        if kept is None:
            raise InboundRefusedError
        if kept.is_new:
            self._ring()
        return Taken(kept.id, duplicate=not kept.is_new)

    def _opened(self, taker: Taker) -> tuple[list[tuple[KeptSecret, bytes, str]], list[str]]:
        """Open a source's secrets: those that live with their keys, those that ended as texts."""
        live: list[tuple[KeptSecret, bytes, str]] = []
        ended: list[str] = []
        scheme, signing = Scheme(taker.scheme), Signing.of(taker.signing)
        for kept in taker.secrets:
            try:
                secret = self._box.open(
                    kept.sealed, bound_to=place_of_secret(taker.client_id, kept.id)
                ).decode()
                key = key_of(scheme, signing, secret)
            except (UnreadableSecretError, ValueError):
                log.error("inbound_secret_unreadable", source_id=str(taker.id))  # noqa: TRY400
                continue
            if kept.has_ended:
                ended.append(secret)
            else:
                live.append((kept, key, secret))
        return live, ended

    def _explain(
        self,
        taker: Taker,
        scheme: Scheme,
        signing: Signing,
        incoming: Incoming,
        verdict: Verdict,
    ) -> None:
        """Have it found out why a request was refused, behind its answer and within bounds."""
        tally = self._tallies.get(taker.id)
        if tally is None:
            tally = _Tally()
            self._tallies.put(taker.id, tally)
        tally.untold += 1
        if tally.explained >= EXPLAINED or len(self._diagnoses) >= MOST_DIAGNOSES * EXPLAINED:
            return
        tally.explained += 1
        count, tally.untold = tally.untold, 0
        live, ended = self._opened(taker)
        work = partial(
            diagnose,
            scheme,
            signing,
            incoming,
            verdict,
            live=[secret for _, _, secret in live],
            ended=ended,
            tolerance_s=taker.tolerance_s,
        )
        task = asyncio.get_running_loop().create_task(self._write_down(taker, work, count))
        self._diagnoses.add(task)
        task.add_done_callback(self._diagnoses.discard)

    async def _write_down(self, taker: Taker, work: Callable[[], Any], count: int) -> None:
        try:
            found = await asyncio.to_thread(work)
            async with self._open_sources() as sources:
                await sources.note_refusal(
                    taker.client_id,
                    taker.id,
                    reason=found.reason,
                    explanation=found.explanation,
                    details=found.details,
                    count=count,
                )
        except UnavailableError:
            log.warning("inbound_refusal_not_noted", source_id=str(taker.id))
        except Exception:
            log.exception("inbound_refusal_not_explained", source_id=str(taker.id))


def _stranger(client_slug: str, slug: str, sender: str) -> str:
    # By path, too: one address of a vendor sends to many tenants. But whoever makes up paths
    # gets no more buckets than these.
    return f"{crc32(f'{client_slug}/{slug}'.encode()) % PATHS}@{sender}"


def external_id(taker: Taker, incoming: Incoming, verdict: Verdict) -> str:
    """Tell which event a request is: as the source says, as its scheme knows, else by content."""
    dedupe = taker.dedupe
    if dedupe is None:
        return (
            content_id(incoming.body) if not verdict.external_id else short_id(verdict.external_id)
        )
    if dedupe.get("header") is not None:
        found = incoming.headers.get(dedupe["header"])
        return short_id(found) if found else content_id(incoming.body)
    if dedupe.get("path") is not None:
        payload = payload_of(incoming.headers, incoming.body)
        values = select(Document(payload, {}, {}), dedupe["path"])
        if len(values) == 1 and values[0] not in ("", None):
            return short_id(as_text(values[0]))
    return content_id(incoming.body)


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the headers that a row keeps: no credentials, not too many, not too long."""
    kept = {
        name: value.replace("\0", "").encode("utf-8", "replace").decode()
        for name, value in headers.items()
        if name not in _SECRET_HEADERS and len(value) <= LONGEST_HEADER
    }
    return dict(list(kept.items())[:MOST_HEADERS])


def hops_of(headers: Mapping[str, str]) -> int:
    """Tell how often what led to this request came round through a server of ours."""
    found = _HOPS.match(headers.get("webhook-origin", "").strip())
    return int(found.group(1)) if found is not None else 0


def _challenge(body: bytes) -> str | None:
    # Slack asks once whether an address is ours, signed like everything else.
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or found.get("type") != _CHALLENGE:
        return None
    challenge = found.get("challenge")
    return challenge[:1000] if isinstance(challenge, str) else None


def _stand_in(box: SecretBox) -> Taker:
    name = uuid7()
    sealed = box.seal(secrets.token_hex(24).encode(), bound_to=place_of_secret(name, name))
    return Taker(
        id=name,
        client_id=name,
        client_slug="",
        slug="",
        scheme=Scheme.GITHUB,
        signing={},
        dedupe=None,
        url=None,
        tolerance_s=300,
        rate_per_s=1,
        rate_burst=1,
        was_verified=False,
        secrets=[KeptSecret(name, sealed, "", has_ended=False)],
    )
