"""The debugger says what would have made a signature right, and nothing that helps a stranger."""

import base64
import hmac
import json
from typing import Any

import pytest

from chatserver.webhooks.sources.claims import Incoming, Scheme, Signing
from chatserver.webhooks.sources.diagnosis import Diagnosis, diagnose, re_encoded
from chatserver.webhooks.sources.signatures import key_of, verify

SECRET = "a secret of some length"
NOW = 1_700_000_000
PAYLOAD = {"zeta": "ü", "alpha": ["/", 1.5, None], "tag": "<b>&</b>"}


def diagnosed(
    scheme: Scheme,
    incoming: Incoming,
    *,
    secret: str = SECRET,
    ended: tuple[str, ...] = (),
    signing: Signing | None = None,
) -> Diagnosis:
    how = signing or Signing()
    verdict = verify(scheme, how, [key_of(scheme, how, secret)], incoming, now=NOW, tolerance_s=300)
    assert not verdict.is_good
    return diagnose(
        scheme, how, incoming, verdict, live=[secret], ended=list(ended), tolerance_s=300
    )


def github(body: bytes, signed: bytes | None = None, *, secret: str = SECRET) -> Incoming:
    mac = hmac.digest(secret.encode(), body if signed is None else signed, "sha256")
    return Incoming({"x-hub-signature-256": f"sha256={mac.hex()}"}, body)


@pytest.mark.parametrize(
    "sent",
    [
        json.dumps(PAYLOAD, separators=(",", ":"), ensure_ascii=False).encode(),
        json.dumps(PAYLOAD).encode(),
        json.dumps(PAYLOAD, sort_keys=True).encode(),
        json.dumps(PAYLOAD, indent=2).encode(),
        json.dumps(PAYLOAD, separators=(",", ":")).replace("/", "\\/").encode(),
        json.dumps(PAYLOAD).encode() + b"\n",
    ],
)
def test_a_body_that_something_wrote_anew(sent: bytes) -> None:
    found = diagnosed(Scheme.GITHUB, github(json.dumps(PAYLOAD, indent=4).encode(), sent.rstrip()))
    assert found.reason == "body_reencoded"


@pytest.mark.parametrize(("at", "side"), [(NOW - 4000, "behind"), (NOW + 4000, "ahead of")])
def test_a_clock_that_is_wrong(at: int, side: str) -> None:
    mac = hmac.digest(SECRET.encode(), f"v0:{at}:".encode() + b"{}", "sha256").hex()
    headers = {"x-slack-signature": f"v0={mac}", "x-slack-request-timestamp": str(at)}
    found = diagnosed(Scheme.SLACK, Incoming(headers, b"{}"))
    assert found.reason == "clock_skew"
    assert f"4000 s {side}" in found.explanation


def test_a_secret_that_ended() -> None:
    found = diagnosed(Scheme.GITHUB, github(b"{}", secret="of yesterday"), ended=("of yesterday",))
    assert found.reason == "secret_ended"


def test_a_secret_that_the_sender_takes_another_way() -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    mac = hmac.digest(secret.encode(), b"m.1700000000.{}", "sha256")
    headers = {
        "webhook-id": "m",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
    found = diagnosed(Scheme.STANDARD, Incoming(headers, b"{}"), secret=secret)
    assert (found.reason, found.details["sender_uses"]) == ("secret_misread", "as text, whole")


def test_another_scheme_than_expected() -> None:
    found = diagnosed(Scheme.STRIPE, github(b"{}"))
    assert (found.reason, found.details["looks_like"]) == ("wrong_scheme", ["github"])


def test_another_address_than_the_sender_called() -> None:
    called = "https://chat.example.com/webhooks/acme/sms"
    mac = base64.b64encode(hmac.digest(SECRET.encode(), f"{called}a1".encode(), "sha1")).decode()
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-twilio-signature": mac,
    }
    seen = called.replace("https", "http")
    found = diagnosed(Scheme.TWILIO, Incoming(headers, b"a=1", seen))
    assert (found.reason, found.details["sender_called"]) == ("url_differs", called)


def test_no_diagnosis_tells_a_secret() -> None:
    for incoming in (
        github(b"{}", secret="other secret"),
        github(b"{} ", b"{}"),
        Incoming({}, b""),
    ):
        found: Any = diagnosed(Scheme.GITHUB, incoming)
        assert SECRET not in f"{found.explanation}{found.details}"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 10_000, b'"\\ud800"', b"1e999"])
def test_no_body_breaks_it(body: bytes) -> None:
    assert diagnosed(Scheme.GITHUB, github(body, b"other")).reason == "wrong_secret"
    assert list(re_encoded(Incoming({"content-type": "application/x-www-form-urlencoded"}, body)))
