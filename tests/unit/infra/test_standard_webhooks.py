"""Our signatures against the public library, and what a wrong one looks like."""

import base64
import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from chatserver.infra.standard_webhooks import key_of, new_secret, sign, verify

NOW = int(datetime.now(UTC).timestamp())


def now() -> int:
    """Asked when a test runs: the public library looks at the clock, and collecting is long ago."""
    return int(datetime.now(UTC).timestamp())


def headers(name: str, signatures: str, at: int) -> dict[str, str]:
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at),
        "webhook-signature": signatures,
    }


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=200))
def test_the_public_library_takes_what_we_sign_and_we_take_what_it_signs(text: str) -> None:
    secret, at = new_secret(), now()
    body = b'{"x": "%s"}' % base64.b64encode(text.encode())
    ours = sign([key_of(secret)], id="m1", timestamp=at, body=body)
    Webhook(secret).verify(body, headers("m1", ours, at))
    theirs = Webhook(secret).sign("m1", datetime.fromtimestamp(at, UTC), body.decode())
    assert theirs == ours
    assert verify([key_of(secret)], id="m1", timestamp=at, body=body, signatures=theirs)


def test_while_secrets_overlap_a_receiver_may_hold_either() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    at = now()
    signatures = sign([key_of(new), key_of(old)], id="m1", timestamp=at, body=b"{}")
    assert len(signatures.split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify(b"{}", headers("m1", signatures, at))
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(b"{}", headers("m1", signatures, at))


@pytest.mark.parametrize(
    ("changed", "value"),
    [("id", "m2"), ("timestamp", NOW + 1), ("body", b"{} "), ("signatures", "v1,"), ("keys", [])],
)
def test_whatever_is_changed_is_noticed(changed: str, value: object) -> None:
    key = key_of(new_secret())
    right: dict[str, object] = {"id": "m1", "timestamp": NOW, "body": b"{}"}
    signatures = sign([key], **right)  # type: ignore[arg-type]
    given = {"keys": [key], "signatures": signatures, **right}
    assert verify(**given)  # type: ignore[arg-type]
    assert not verify(**{**given, changed: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("signatures", ["", "v1", "v1a,abc", "x" * 10_000, "v1,é", "v1,\ud800"])
def test_no_nonsense_is_taken_for_a_signature(signatures: str) -> None:
    assert not verify([os.urandom(32)], id="m", timestamp=1, body=b"", signatures=signatures)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%", "whsec_" + "A" * 12, "A" * 400])
def test_what_is_no_secret_is_refused_without_being_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="must") as refused:
        key_of(secret)
    assert not secret or secret not in str(refused.value)


def test_secrets_are_32_random_bytes() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert {len(key_of(secret)) for secret in secrets} == {32}
