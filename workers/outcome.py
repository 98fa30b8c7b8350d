"""How an attempt at a job ended, and what follows from that."""

import random
from dataclasses import dataclass
from typing import Final

from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Claim
from chatserver.infra.redaction import redact_text
from chatserver.kernel.errors import DomainError, ErrorKind

LONGEST_PAUSE_S: Final = 900.0
LONGEST_ERROR: Final = 1000

# Refusals that may be no more later; any other refusal would only be repeated.
_PASSING: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.RATE_LIMITED, ErrorKind.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `jobs.end` records: `done`, `failed`, or `queued` again after `delay_s`."""

    state: str
    error: str | None = None
    delay_s: float = 0.0


DONE: Final = Outcome("done")
GIVEN_BACK: Final = Outcome("queued", "its worker was stopped")


def after(kind: JobKind, claim: Claim, error: BaseException) -> Outcome:
    """Decide what follows an error: another attempt after a pause, or the end."""
    text = describe(error)
    is_refusal = isinstance(error, DomainError) and error.kind not in _PASSING
    if is_refusal or claim.attempt >= kind.max_attempts:
        return Outcome("failed", text)
    return Outcome("queued", text, pause_s(kind, claim.attempt, spread=random.random()))  # noqa: S311 - no secret


def pause_s(kind: JobKind, attempt: int, *, spread: float) -> float:
    """Give the seconds to wait after the `attempt`th try; `spread` (0 to 1) adds up to a quarter.

    Without it, whatever failed together would come back together.
    """
    doubled = kind.retry_s * 2.0 ** min(attempt - 1, 30)
    return min(doubled, LONGEST_PAUSE_S) * (1 + spread / 4)


def describe(error: BaseException) -> str:
    """Give the text that a row keeps: no secret, nothing that PostgreSQL refuses, not too long."""
    code = f" [{error.code}]" if isinstance(error, DomainError) else ""
    text = redact_text(f"{type(error).__name__}{code}: {error}").replace("\0", "")
    return text.encode(errors="replace").decode()[:LONGEST_ERROR]
