"""Which addresses are the same, what is shown of them, and what a choice blocks."""

import pytest
from pydantic import ValidationError

from chatserver.notifications.consent.policies import blocks, canonical, hint, wants
from chatserver.notifications.consent.schemas import PreferencesPut, SuppressionCreate
from chatserver.notifications.devices.schemas import DevicePut

KEYS = {
    "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-"
    "AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
}


def test_one_mailbox_is_one_address_however_it_is_written() -> None:
    assert canonical("email", "Ann@Example.COM") == "ann@example.com"
    assert canonical("sms", "+49 (170) 12-34") == "+491701234"
    assert canonical("push", "AbC") == "AbC"


@pytest.mark.parametrize(
    ("address", "shown"),
    [("ann@example.com", "a…@example.com"), ("+491701234567", "+4…67"), ("short", "…")],
)
def test_little_is_shown_of_it(address: str, shown: str) -> None:
    assert hint(address) == shown


def test_a_category_of_its_own_counts_before_all() -> None:
    chosen = {"*": {"email": False}, "invoices": {"email": True}}
    assert not wants(chosen, category="news", channel="email")
    assert wants(chosen, category="invoices", channel="email")
    assert wants(chosen, category="news", channel="push")
    assert wants({}, category="news", channel="email")


@pytest.mark.parametrize(
    ("scope", "reason", "category", "priority", "is_blocked"),
    [
        ("category:news", "unsubscribe", "news", "bulk", True),
        # A newsletter's opt-out must not block a password reset.
        ("category:news", "unsubscribe", "password", "transactional", False),
        ("all", "complaint", "password", "transactional", True),
        ("all", "complaint", "password", "critical", False),
        ("all", "hard_bounce", "password", "critical", True),
        ("all", "manual", "news", "bulk", True),
    ],
)
def test_what_a_suppression_blocks(
    scope: str, reason: str, category: str, priority: str, is_blocked: bool
) -> None:
    found = blocks(scope=scope, reason=reason, category=category, priority=priority)
    assert found is is_blocked


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "fcm"},
        {"kind": "web_push", "token": "x" * 20},
        {"kind": "fcm", "token": "with blank s"},
        {"kind": "web_push", "subscription": {"endpoint": "ftp://x", "keys": KEYS}},
        {
            "kind": "web_push",
            "subscription": {"endpoint": "https://x/", "keys": {**KEYS, "auth": "AA"}},
        },
        {
            "kind": "web_push",
            "token": "x" * 20,
            "subscription": {"endpoint": "https://x/", "keys": KEYS},
        },
    ],
)
def test_what_is_no_device(wrong: dict[str, object]) -> None:
    DevicePut.model_validate(
        {"kind": "web_push", "subscription": {"endpoint": "https://x/", "keys": KEYS}}
    )
    with pytest.raises(ValidationError):
        DevicePut.model_validate(wrong)


def test_what_is_no_choice_and_no_suppression() -> None:
    for wrong in (
        {"News!": {"email": True}},
        {"news": {"pigeon": True}},
        {"news": {"email": "no"}},
    ):
        with pytest.raises(ValidationError):
            PreferencesPut.model_validate({"preferences": wrong})
    for address in ("", "a b@x", "a\r\nBcc: b@x", "x" * 321):
        with pytest.raises(ValidationError):
            SuppressionCreate(channel="email", address=address)
