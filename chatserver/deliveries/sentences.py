"""Pure: a delivery in words, for people who ask where it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatserver.deliveries.policies import WAITING


@dataclass(frozen=True, slots=True)
class Said:
    """A delivery in words: what is the matter, and whose it is to mend (None: nothing is).

    `ours`, `provider`, `receiver` (of a webhook), `recipient` (the person, or the mailbox) or
    `caller` (what was asked for, or how the client is set up).
    """

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
    "reconciled": "the provider was asked, and has it",
    "undeliverable": "we could not make the request",
    "unknown_outcome": "the connection broke after the mail was handed over: it may have arrived",
    "provider_gone": "the provider was deleted",
    "credentials_unreadable": "the provider's credentials can't be read",
    "content_gone": "what was to be said is not kept any more",
    "mail_invalid": "no mail can be made of it",
    "attachment_gone": "a file that it was to carry is not there any more",
    "storage_away": "the files that it carries can't be read just now",
    "attachments_busy": "other mails with files went first",
    "subscription_gone": "the browser is not subscribed any more",
    "payload_too_large": "the push service takes no message of this size",
    "push_service_resting": "the push service asked to be left in peace",
}
# How far a mail came, by the first word of its error; the rest is a code, or what kind it is of.
_PHASES: Final = {
    "resolve": "has a host that can't be found or is not public",
    "connect": "could not be reached",
    "tls": "offers no encryption that can be trusted",
    "auth": "refused the log-in",
    "sender": "refused the sender",
    "recipient": "did not take this recipient",
    "data": "did not take the mail",
    "answer": "did not take the mail",
}
_KINDS: Final = frozenset({"retryable", "throttled", "configuration", "content", "recipient"})
# Why something was not sent at all, and whose that is.
_SUPPRESSED: Final = {
    "no_address": ("there is no address for this channel", "caller"),
    "preference": ("the person does not want this category on this channel", "recipient"),
    "unsubscribe": ("the address has unsubscribed from this category", "recipient"),
    "complaint": ("its owner has complained of an earlier mail", "recipient"),
    "hard_bounce": ("the address does not exist, as an earlier mail has shown", "recipient"),
    "soft_bounce": (
        "the address took none of several mails lately, and is left in peace for some days",
        "recipient",
    ),
    "invalid": ("the address is known to be wrong", "recipient"),
    "manual": ("the address was suppressed by hand", "caller"),
}
_CALLER: Final = frozenset(
    {
        *("provider_gone", "credentials_unreadable", "mail_invalid", "attachment_gone"),
        "address_refused",
    }
)
# How the client has set up its provider.
_SET_UP: Final = frozenset({"resolve", "auth", "sender"})
_OURS: Final = frozenset({"interrupted", "undeliverable", "storage_away", "attachments_busy"})
_ARRIVED: Final = {
    "socket": "It is in the inbox; no device has said yet that it has it.",
    "email": "The mail server has taken it{after}. It does not tell what becomes of it.",
}


def explain(
    *,
    channel: str,
    state: str,
    reason: str | None,
    target_state: str | None,
    attempts: Sequence[tuple[str, str | None, int | None]],
) -> Said:
    """Say in a sentence how a delivery stands; `attempts` are (outcome, error, status)."""
    who = "provider" if channel in ("email", "sms", "push") else "receiver"
    tries = f"{len(attempts)} {'try' if len(attempts) == 1 else 'tries'}"
    seen = _Seen(
        who=who,
        tries=tries,
        after=f" after {tries}" if attempts else "",
        last=_what(attempts[-1], who) if attempts else "",
        fault=_fault(attempts[-1], who) if attempts else None,
    )
    if state == "accepted" and channel in _ARRIVED:
        return Said(_ARRIVED[channel].format(after=seen.after), None)
    if state in WAITING:
        return _waits(state, target_state, seen)
    return _ended(state, reason, seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the tries of a delivery tell."""

    who: str
    tries: str
    after: str
    last: str
    fault: str | None


_PLAIN: Final = {
    ("sending", None): Said("It is being sent just now.", None),
    ("bounced", None): Said("The mailbox does not exist, or takes nothing.", "recipient"),
    ("cancelled", "fallback_not_needed"): Said(
        "It was not needed: the person was reached otherwise.", None
    ),
    ("cancelled", None): Said("It was cancelled before it was delivered.", None),
}


def _ended(state: str, reason: str | None, seen: _Seen) -> Said:
    if state in ("delivered", "accepted"):
        return Said(f"It was delivered{seen.after}.", None)
    if state == "suppressed":
        why, whose = _SUPPRESSED.get(reason or "", (reason or "it is unwanted", "recipient"))
        return Said(f"It was not sent: {why}.", whose)
    if state == "expired":
        last = f": {seen.last}" if seen.last else ""
        return Said(f"Its time was up after {seen.tries}{last}.", seen.fault)
    return _PLAIN.get((state, reason)) or _PLAIN.get((state, None)) or _failed(reason, seen)


def _failed(reason: str | None, seen: _Seen) -> Said:
    if reason == "no_provider":
        return Said("It can't be sent: no provider of this channel is set up.", "caller")
    if reason == "exhausted":
        return Said(
            f"It was given up after {seen.tries}: {seen.last}. It can be replayed.", seen.fault
        )
    if reason in ("target_disabled", "gone"):
        return Said(f"It was given up: the {seen.who} is disabled. It can be replayed.", seen.who)
    return Said(f"It failed: {seen.last or reason or 'failed'}.", seen.fault)


def _waits(state: str, target_state: str | None, seen: _Seen) -> Said:
    if target_state == "paused":
        return Said(
            f"It waits: the {seen.who} fails, so it is left in peace and probed from time to"
            f" time{f'; the last time {seen.last}' if seen.last else ''}. This uses up no tries.",
            seen.fault or seen.who,
        )
    if seen.last:
        return Said(f"It waits for the next try: {seen.last}.", seen.fault)
    if state == "scheduled":
        return Said("It waits for its time.", None)
    return Said("It waits for its first try.", None)


def _what(attempt: tuple[str, str | None, int | None], who: str) -> str:
    outcome, error, status = attempt
    phase, _, how = (error or "").partition("_")
    if phase == "sender" and outcome != "configuration":
        phase = "data"  # it is not the sender's address that is wrong
    if phase in _PHASES and how and error not in _ERRORS:
        code = "" if how in _KINDS else f" ({how})"
        answered = "" if status is None else f": it answered {status}"
        return f"the {who} {_PHASES[phase]}{answered}{code if code != f' ({status})' else ''}"
    if status is not None and error not in _ERRORS:
        return f"the {who} answered {status}"
    return _ERRORS.get(error or "", error or "it failed")


def _fault(attempt: tuple[str, str | None, int | None], who: str) -> str | None:
    outcome, error, _ = attempt
    if outcome in ("accepted", "skipped"):
        return None
    if error in _OURS:
        return "ours"
    phase = (error or "").partition("_")[0]
    if error in _CALLER or (outcome == "configuration" and phase in _SET_UP):
        return "caller"
    return "recipient" if phase == "recipient" else who
