"""Pure decisions: when to try again, how a target's health changes, and what to say about it."""

from dataclasses import dataclass
from typing import Final

from chatserver.deliveries.models import AttemptPart, Claim, Sent
from chatserver.deliveries.schemas import AttemptOut

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
# Seconds before each try: 13 tries in 75.7 hours.
SCHEDULE: Final = (
    *(0.0, 5.0, 30.0, 120.0, 600.0, 1800.0, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR),
    *(DAY, DAY),
)
# Where the receiver itself seems to be set up wrongly, waiting for days helps nobody.
SHORT_SCHEDULE: Final = SCHEDULE[:6]
SPREAD: Final = 0.2
LONGEST_RETRY_AFTER: Final = 6 * HOUR
# A delivery waits for a paused target for as long as that is not given up.
DEADLINE_S: Final = 5 * DAY

DEGRADED_AT: Final = 3
PAUSED_AT: Final = 5
# Who never took anything is not asked as often.
UNPROVEN_PAUSED_AT: Final = 3
OPEN_S: Final = 30.0
LONGEST_OPEN_S: Final = 900.0
GIVEN_UP_AFTER_S: Final = 5 * DAY
WARNED_AFTER_S: Final = 4 * DAY
# Troubles of the same target are told of once an hour.
TOLD_EVERY_S: Final = HOUR

WAITING: Final = frozenset({"scheduled", "queued", "retry_wait"})
UNDER_WAY: Final = WAITING | {"sending"}
# What `accepted` (of a request) must be the sum of, with what is under way.
TERMINAL: Final = (
    *("accepted", "delivered", "bounced", "suppressed", "expired", "failed", "cancelled"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a delivery after a try. `counts`: it was one of the schedule's tries."""

    state: str
    reason: str | None = None
    delay_s: float = 0.0
    counts: bool = True


def judge(claim: Claim, sent: Sent, *, spread: float) -> Verdict:
    """Decide what follows a try; `spread` (0 to 1) is the jitter."""
    if sent.outcome == "accepted":
        return Verdict("delivered")
    if sent.outcome in ("gone", "rejected"):
        return Verdict("failed", sent.error)
    if claim.is_probe:
        # It was the target that was tried. Next time another delivery probes: this one may be bad.
        return Verdict("retry_wait", sent.error, OPEN_S, counts=False)
    schedule = SHORT_SCHEDULE if sent.outcome == "configuration" else SCHEDULE
    done = claim.attempts + 1
    if done >= len(schedule):
        return Verdict("failed", "exhausted")
    delay_s = jittered(schedule[done], spread)
    if sent.retry_after_s is not None:
        delay_s = max(delay_s, min(sent.retry_after_s, LONGEST_RETRY_AFTER))
    if delay_s >= claim.left_s:
        return Verdict("expired", "deadline")
    return Verdict("retry_wait", sent.error, delay_s)


def jittered(seconds: float, spread: float) -> float:
    return seconds * (1 - SPREAD + 2 * SPREAD * spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A target as it is, read under its lock. Ages are in seconds; None: never."""

    state: str = "active"
    failures: int = 0
    failing_s: float | None = None
    opened: int = 0
    is_proven: bool = True
    told_s: float | None = None
    # Seconds since it got into its state.
    since_s: float = 0.0
    is_warned: bool = False
    is_draining: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of a target. `open_s`: for so long nothing is sent; None: as it was.

    `told`: what to announce, as the last part of a fact's name.
    """

    state: str
    reason: str | None = None
    failures: int = 0
    opened: int = 0
    open_s: float | None = None
    is_draining: bool = False
    told: tuple[str, ...] = ()
    warned: bool = False


def after_failure(
    health: Health, sent: Sent, *, is_probe: bool, is_flapping: bool, spread: float
) -> Change:
    """Decide what a failed try means for its target.

    `is_flapping`: half of at least ten tries within a minute failed.
    """
    failures = health.failures + 1
    if health.state in ("disabled", "deleted"):
        return Change(state=health.state, failures=failures, opened=health.opened)
    if sent.outcome == "gone":
        return Change(state="disabled", reason=sent.error, failures=failures, told=("disabled",))
    failing_s = health.failing_s or 0.0
    if failing_s >= GIVEN_UP_AFTER_S:
        return Change(
            state="disabled", reason="failing_for_5_days", failures=failures, told=("disabled",)
        )
    paused_at = PAUSED_AT if health.is_proven else UNPROVEN_PAUSED_AT
    is_paused = health.state == "paused" or failures >= paused_at or is_flapping
    state = "active"
    if is_paused:
        state = "paused"
    elif failures >= DEGRADED_AT or health.state == "degraded":
        state = "degraded"
    open_s, opened = None, health.opened
    # What was on its way when the pause began says nothing new; a probe does.
    if is_paused and (is_probe or health.state != "paused"):
        open_s = jittered(min(OPEN_S * 2.0 ** min(opened, 10), LONGEST_OPEN_S), spread)
        opened += 1
    if sent.outcome == "throttled":
        asked = min(sent.retry_after_s or OPEN_S, LONGEST_RETRY_AFTER)
        open_s = max(open_s or 0.0, asked)
    warned = failing_s >= WARNED_AFTER_S and not health.is_warned
    is_lately = health.told_s is not None and health.told_s < TOLD_EVERY_S
    # Getting worse is told even within the hour.
    is_news = state not in {health.state, "active"}
    told = (state,) if is_news and (not is_lately or health.state == "degraded") else ()
    return Change(
        state=state,
        reason=sent.error if state != "active" else None,
        failures=failures,
        opened=opened,
        open_s=open_s,
        is_draining=health.is_draining and not is_paused,
        told=(*told, "disabling") if warned else told,
        warned=warned,
    )


def after_success(health: Health) -> Change:
    """Decide what a success means for a target: it is well, and what has gathered goes out."""
    if health.state in ("disabled", "deleted"):
        return Change(state=health.state)
    was_paused = health.state == "paused"
    was_told = health.told_s is not None and health.told_s <= health.since_s
    return Change(
        state="active",
        open_s=0.0,
        is_draining=was_paused or health.is_draining,
        told=("resumed",) if was_paused and was_told else (),
    )


def part_out(part: AttemptPart, trigger: str) -> AttemptOut:
    """Show what a try did at one of several addresses."""
    return AttemptOut.model_validate(
        part.model_dump(exclude={"part_id", "delivery_id", "client_id"})
        | {"device_id": part.part_id, "trigger": trigger, "request": None, "response": None}
    )
