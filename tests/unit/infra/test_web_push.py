"""Sealing for browsers, held against the RFC's own example; what push services' answers mean."""

from datetime import UTC, datetime

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from chatserver.infra.http_client import OutboundError, Reply
from chatserver.infra.push_client import WebPush, judged
from chatserver.infra.web_push import (
    MOST_PAYLOAD,
    PushMessage,
    Subscription,
    Vapid,
    VapidKey,
    bytes_of,
    check_point,
    encrypt,
    text_of,
    topic_of,
)

# RFC 8291, section 5 and appendix A.
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
THEIRS = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
OURS = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
SEALED = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWA"
    "mS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxs"
    "j_Qulcy4a-fN"
)


class Service:
    def __init__(self, reply: Reply | OutboundError) -> None:
        self.reply = reply
        self.body = b""

    async def exchange(self, url: str, *, headers: dict[str, str], body: bytes, most: int) -> Reply:
        self.body = body
        if isinstance(self.reply, OutboundError):
            raise self.reply
        return self.reply


def test_it_seals_as_the_rfc_does() -> None:
    sealed = encrypt(
        b"When I grow up, I want to be a watermelon",
        p256dh=bytes_of(THEIRS),
        auth=bytes_of(AUTH),
        salt=bytes_of(SALT),
        own=VapidKey.from_bytes(bytes_of(OURS)).private,
    )
    assert text_of(sealed) == SEALED


def test_the_largest_payload_is_what_every_service_must_take() -> None:
    sealed = encrypt(b"x" * MOST_PAYLOAD, p256dh=bytes_of(THEIRS), auth=bytes_of(AUTH))
    assert len(sealed) == 4096


def test_a_key_survives_being_kept() -> None:
    key = VapidKey.new()
    assert VapidKey.from_bytes(key.to_bytes()).public == key.public
    check_point(bytes_of(key.public))


@pytest.mark.parametrize("raw", [b"\x04" + b"\x01" * 64, b"\x00" * 65, b""])
def test_what_is_no_point_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_point(raw)


def test_a_token_is_for_one_service_and_used_again() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    key = VapidKey.new()
    vapid = Vapid(key, "mailto:ops@example.org", clock=lambda: now)
    first = vapid.authorization("https://push.example.org/a/b")
    assert vapid.authorization("https://push.example.org/c") == first
    assert vapid.authorization("https://other.example.org/c") != first
    token = first.removeprefix("vapid t=").partition(",")[0]
    claims = jwt.decode(
        token, key.private.public_key(), algorithms=["ES256"], options={"verify_aud": False}
    )
    assert claims == {
        "aud": "https://push.example.org",
        "sub": "mailto:ops@example.org",
        "exp": int(now.timestamp()) + 12 * 3600,
    }
    assert first.endswith(f", k={key.public}")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((200, "accepted"), (201, "accepted"), (204, "accepted"), (301, "rejected")),
        *((400, "rejected"), (401, "rejected"), (403, "rejected"), (404, "gone"), (410, "gone")),
        *((408, "retryable"), (413, "rejected"), (429, "throttled"), (500, "retryable")),
        (503, "retryable"),
    ],
)
def test_what_an_answer_means(status: int, kind: str) -> None:
    outcome = judged(Reply(status, {"Retry-After": "7"}, b""))
    assert outcome.kind == kind
    assert outcome.retry_after_s == (7 if kind in ("throttled", "retryable") else None)


@pytest.mark.parametrize(
    ("reply", "length", "kind", "error"),
    [
        (Reply(201, {}, b""), MOST_PAYLOAD + 1, "rejected", "payload_too_large"),
        (OutboundError("slow", kind="timeout"), 10, "retryable", "timeout"),
        (Reply(413, {}, b""), 10, "rejected", "payload_too_large"),
    ],
)
async def test_what_goes_wrong_is_an_outcome(
    reply: Reply | OutboundError, length: int, kind: str, error: str
) -> None:
    service = Service(reply)
    vapid = Vapid(VapidKey.new(), "https://example.org", clock=lambda: datetime.now(UTC))
    browser = ec.generate_private_key(ec.SECP256R1())
    subscription = Subscription(
        "https://push.example.org/a", bytes_of(VapidKey(browser).public), b"a" * 16
    )
    message = PushMessage(payload=b"x" * length, ttl_s=60, urgency="normal")
    outcome = await WebPush(service).send(vapid, subscription, message)
    assert (outcome.kind, outcome.error) == (kind, error)
    assert (service.body == b"") is (length > MOST_PAYLOAD)


def test_a_topic_tells_nothing_and_fits() -> None:
    topic = topic_of("order-42" * 20)
    assert len(topic) == 32
    assert topic == topic_of("order-42" * 20)
    assert "order" not in topic
