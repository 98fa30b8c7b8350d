"""A delivery in words: every state has its sentence, and somebody who can mend it."""

import pytest

from chatserver.deliveries.sentences import explain


@pytest.mark.parametrize(
    ("state", "reason", "target", "attempts", "part", "fault"),
    [
        ("queued", None, "active", [], "first try", None),
        ("queued", None, "paused", [], "left in peace", "receiver"),
        ("sending", None, "active", [], "just now", None),
        ("delivered", None, "active", [("accepted", None, 200)], "after 1 try.", None),
        (
            "retry_wait",
            "status_500",
            "active",
            [("retryable", "status_500", 500)],
            "answered 500",
            "receiver",
        ),
        ("retry_wait", "t", "active", [("retryable", "timeout", None)], "in time", "receiver"),
        (
            *("retry_wait", "interrupted", "active"),
            *([("unknown", "interrupted", None)], "our worker", "ours"),
        ),
        (
            "failed",
            "exhausted",
            "active",
            [("retryable", "redirect", 301)],
            "redirect",
            "receiver",
        ),
        ("failed", "target_disabled", "disabled", [], "disabled", "receiver"),
        ("cancelled", "target_deleted", "deleted", [], "cancelled", None),
        ("expired", "deadline", "paused", [], "time was up", None),
    ],
)
def test_every_state_has_its_sentence(
    state: str,
    reason: str | None,
    target: str,
    attempts: list[tuple[str, str | None, int | None]],
    part: str,
    fault: str | None,
) -> None:
    said = explain(
        channel="webhook", state=state, reason=reason, target_state=target, attempts=attempts
    )
    assert part in said.sentence
    assert said.fault == fault


@pytest.mark.parametrize(
    ("channel", "state", "reason", "attempts", "part", "fault"),
    [
        ("email", "accepted", None, [("accepted", None, 250)], "after 1 try", None),
        ("socket", "accepted", None, [], "in the inbox", None),
        ("email", "suppressed", "no_address", [], "no address", "caller"),
        ("email", "suppressed", "unsubscribe", [], "unsubscribed", "recipient"),
        ("push", "suppressed", "preference", [], "does not want", "recipient"),
        ("email", "bounced", "recipient_5.1.1", [("bounced", "r", 550)], "mailbox", "recipient"),
        ("email", "failed", "no_provider", [], "no provider", "caller"),
        (
            *("email", "failed", "unknown_outcome"),
            *([("unknown", "unknown_outcome", None)], "may have arrived", "provider"),
        ),
        (
            "email",
            "retry_wait",
            "x",
            [("retryable", "mail_451", 451)],
            "provider answered",
            "provider",
        ),
        (
            *("email", "retry_wait", "x"),
            *([("configuration", "resolve_configuration", None)], "or is not public.", "caller"),
        ),
        (
            *("email", "retry_wait", "x"),
            *([("configuration", "auth_5.7.8", 535)], "log-in: it answered 535 (5.7.8)", "caller"),
        ),
        (
            *("email", "retry_wait", "x"),
            *([("retryable", "recipient_450", 450)], "recipient: it answered 450.", "recipient"),
        ),
        (
            *("email", "retry_wait", "x"),
            *([("retryable", "connect_retryable", None)], "not be reached.", "provider"),
        ),
        (
            *("email", "suppressed", "soft_bounce"),
            *([("unreachable", "soft_bounce", None)], "for some days", "recipient"),
        ),
        ("email", "failed", "p", [("rejected", "mail_invalid", None)], "no mail", "caller"),
        ("email", "failed", "p", [("rejected", "attachment_gone", None)], "a file that", "caller"),
        ("email", "retry_wait", "p", [("waiting", "storage_away", None)], "just now", "ours"),
        ("email", "scheduled", None, [], "for its time", None),
        (
            *("email", "cancelled", "fallback_not_needed"),
            *([("skipped", "fallback_not_needed", None)], "reached otherwise", None),
        ),
    ],
)
def test_each_channel_names_who_can_mend_it(
    channel: str,
    state: str,
    reason: str | None,
    attempts: list[tuple[str, str | None, int | None]],
    part: str,
    fault: str | None,
) -> None:
    said = explain(
        channel=channel, state=state, reason=reason, target_state="active", attempts=attempts
    )
    assert part in said.sentence
    assert said.fault == fault
