"""Pure decisions: when to try again, how a target's health changes, and what to say about it."""

from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class Said:
    """A delivery in words: what is the matter, and whose it is to mend (None: nothing is)."""

    sentence: str
    fault: str | None


_ERRORS: Final = {
    "timeout": "it did not answer in time",
    "connect_failed": "no connection could be made",
    "tls_failed": "its certificate or TLS handshake failed",
    "address_refused": "its address is not public",
    "redirect": "it answered with a redirect, which is not followed",
    "response_broken": "its answer could not be read",
    "aborted_by_receiver": "it asked not to be sent this again",
    "disabled_by_receiver": "it asked not to be sent anything again",
    "interrupted": "our worker was stopped before the answer came",
    "undeliverable": "we could not make the request",
    "subscription_gone": "the browser is not subscribed any more",
    "payload_too_large": "the push service takes no message of this size",
    "push_service_resting": "the push service asked to be left in peace",
}


_REASONS: Final = {
    "no_address": "nothing is known to send it to on this channel",
    "preference": "the person does not want it",
    "unsubscribe": "the recipient has unsubscribed",
    "hard_bounce": "the address does not exist",
    "complaint": "the recipient has complained",
}


def explain(  # noqa: PLR0911 - one sentence for each case
    *,
    state: str,
    reason: str | None,
    target_state: str | None,
    attempts: Sequence[tuple[str, str | None, int | None]],
) -> Said:
    """Say in a sentence how a delivery stands; `attempts` are (outcome, error, status)."""
    tries = f"{len(attempts)} {'try' if len(attempts) == 1 else 'tries'}"
    last = _what(attempts[-1]) if attempts else ""
    fault = _fault(attempts[-1]) if attempts else None
    if state in ("delivered", "accepted"):
        return Said(f"It was delivered after {tries}.", None)
    if state == "sending":
        return Said("It is being sent just now.", None)
    if state in WAITING:
        if target_state == "paused":
            return Said(
                "It waits: the receiver fails, so it is left in peace and probed from time to"
                f" time{f'; the last time {last}' if last else ''}. This uses up no tries.",
                fault or "receiver",
            )
        if not attempts:
            return Said("It waits for its first try.", None)
        return Said(f"It waits for the next try: {last}.", fault)
    if state == "failed" and reason == "exhausted":
        return Said(f"It was given up after {tries}: {last}. It can be replayed.", fault)
    if state == "failed" and reason in ("target_disabled", "gone"):
        return Said("It was given up: the receiver is disabled. It can be replayed.", "receiver")
    if state == "expired":
        return Said(f"Its time was up after {tries}{f': {last}' if last else ''}.", fault)
    return _said_of_end(state, reason, last, fault)


def _said_of_end(state: str, reason: str | None, last: str, fault: str | None) -> Said:
    if state == "suppressed":
        return Said(f"It was not sent: {_REASONS.get(reason or '', reason)}.", None)
    if state == "bounced":
        return Said(f"It can't arrive: {last or reason}.", "receiver")
    if state == "cancelled":
        return Said("It was cancelled before it was delivered.", None)
    return Said(f"It failed: {last or reason or state}.", fault)


def _what(attempt: tuple[str, str | None, int | None]) -> str:
    _, error, status = attempt
    if status is not None and error not in _ERRORS:
        return f"the receiver answered {status}"
    return _ERRORS.get(error or "", error or "it failed")


def _fault(attempt: tuple[str, str | None, int | None]) -> str | None:
    outcome, error, _ = attempt
    if outcome == "accepted":
        return None
    return "ours" if error in ("interrupted", "undeliverable") else "receiver"


def part_out(part: AttemptPart, trigger: str) -> AttemptOut:
    """Show what a try did at one of several addresses."""
    return AttemptOut.model_validate(
        part.model_dump(exclude={"part_id", "delivery_id", "client_id"})
        | {"device_id": part.part_id, "trigger": trigger, "request": None, "response": None}
    )
