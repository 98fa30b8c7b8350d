"""Pure decisions about mails: what may have arrived, what says something of an address."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import Verdict
from chatserver.deliveries.queue import AGAIN_S
from chatserver.infra.mailgun_events import MailEvent
from chatserver.notifications.requests.policies import PRIORITIES, UNKNOWN

# Kinds of providers that can be asked what became of a mail.
TELLING: Final = frozenset({"mailgun"})


class _Loaded(Protocol):
    @property
    def row(self) -> Any: ...  # noqa: ANN401 - of a database


def cut_off(_: Claim, loaded: _Loaded | None) -> Verdict:
    """Decide what becomes of a mail whose sending was cut off: nobody knows whether it arrived."""
    if loaded is not None and not may_wait(loaded.row):
        return Verdict("failed", UNKNOWN)
    return Verdict("retry_wait", UNKNOWN, AGAIN_S)


def may_repeat(row: Any) -> bool:  # noqa: ANN401 - of a database
    """Tell whether a mail that may have been taken may be sent again: once, and never an offer."""
    return bool(row["priority"] != PRIORITIES["bulk"] and row["unknowns"] <= 1)


def may_wait(row: Any) -> bool:  # noqa: ANN401 - of a database
    """Tell whether a mail that may just have been taken has a next try.

    Either it is sent again by then, or its provider is asked what became of it.
    """
    if row["unknowns"]:
        return False
    return row["priority"] != PRIORITIES["bulk"] or row["provider_kind"] in TELLING


def reconciled(events: Sequence[MailEvent] | None, *, is_over: bool) -> Sent | None:
    """Decide what follows from what a provider says of a mail that it may have. None: send it.

    `events` None: it can't be asked now, and nobody sends again what may have arrived. `is_over`:
    it is not sent again, whatever is known.
    """
    if events is None:
        return Sent(outcome="waiting", error=UNKNOWN, retry_after_s=AGAIN_S)
    kinds = {event.kind: event for event in events}
    if kinds.keys() & {"delivered", "opened", "clicked", "complained", "unsubscribed"}:
        return Sent(outcome="accepted", error="delivered")
    if (bounce := kinds.get("bounced")) is not None:
        error = f"bounced_{bounce.code}" if bounce.code else "bounced"
        return Sent(outcome="bounced", error=error)
    if events:
        return Sent(outcome="accepted", error="reconciled")
    return Sent(outcome="rejected", error=UNKNOWN) if is_over else None


def is_soft(error: str | None) -> bool:
    """Tell whether the last refusal of a mail that was lost says that its address takes none now.

    What was refused for the sender's sake (x.7.x), or before a recipient was named, says nothing.
    """
    phase, _, code = (error or "").partition("_")
    if code[1:] == ".2.2":
        return True
    return phase == "recipient" and code.startswith("4") and not code.startswith("4.7.")


def is_about_recipient(sent: Sent) -> bool:
    """Tell whether a try failed for one recipient's sake: whoever refused it is well."""
    return sent.outcome == "retryable" and (sent.error or "").startswith("recipient_4")
