"""Every scheme against what its vendor publishes; and what must not pass, in each of them.

Vendors that publish no whole example (body, secret and signature: Stripe, Shopify, Mailgun) are
held against values made with `openssl dgst -hmac` from the algorithm of their documents.
"""

import base64
import hashlib
import hmac
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from chatserver.kernel.clock import utc_now
from chatserver.webhooks.sources.claims import Incoming, Reason, Scheme, Signing
from chatserver.webhooks.sources.signatures import Verdict, key_of, verify
from chatserver.webhooks.sources.vendors import check_template

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
TWILIO_FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
    b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
    b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
    b".803a0bc887a14d10d2c447fce8b6703c"
)
MAILGUN_BODY = (
    b'{"signature":{"token":"a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0",'
    b'"timestamp":"1529006854",'
    b'"signature":"b63c0701c4f4b614f272106a1b367c5c3369bcdca664ae73ebd52787e45eef07"},'
    b'"event-data":{"event":"delivered","id":"CPgfbmQMTCKtHW6uIWtuVe"}}'
)


class Example:
    """A request that is good, at the time at which it was signed."""

    def __init__(
        self,
        scheme: Scheme,
        secret: str,
        headers: dict[str, str],
        body: bytes,
        *,
        now: float = 1_700_000_000,
        url: str = "",
        external_id: str | None = None,
        signing: Signing | None = None,
    ) -> None:
        self.scheme, self.secret, self.now = scheme, secret, now
        self.incoming = Incoming(headers, body, url)
        self.external_id = external_id
        self.signing = signing or Signing()

    def check(self, *, secrets: list[str] | None = None, **changes: Any) -> Verdict:
        late = changes.pop("late_s", 0)
        keys = [key_of(self.scheme, self.signing, it) for it in secrets or [self.secret]]
        return verify(
            self.scheme,
            self.signing,
            keys,
            replace(self.incoming, **changes),
            now=self.now + late,
            tolerance_s=300,
        )


PUBLISHED = {
    # Standard Webhooks, the reference libraries' own test.
    "standard": Example(
        Scheme.STANDARD,
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        now=1614265330,
        external_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
    ),
    # docs.github.com, "Validating webhook deliveries", test values.
    "github": Example(
        Scheme.GITHUB,
        "It's a Secret to Everybody",
        {
            "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "x-hub-signature-256": "sha256="
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        },
        b"Hello, World!",
        external_id="72d3162e-cc78-11e3-81ab-4c9367dc0958",
    ),
    # api.slack.com, "Verifying requests from Slack".
    "slack": Example(
        Scheme.SLACK,
        "8f742231b10e8888abcd99yyyzzz85a5",
        {
            **FORM,
            "x-slack-request-timestamp": "1531420618",
            "x-slack-signature": "v0="
            "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        SLACK_BODY,
        now=1531420618,
    ),
    # twilio.com, "Validating signatures", as its helper libraries test it.
    "twilio": Example(
        Scheme.TWILIO,
        "12345",
        {**FORM, "x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="},
        urlencode(TWILIO_FORM).encode(),
        url="https://mycompany.com/myapp.php?foo=1&bar=2",
    ),
}
OPENSSL = {
    "stripe": Example(
        Scheme.STRIPE,
        "whsec_test_secret",
        {
            **JSON,
            "stripe-signature": "t=1492774577,v1=00,v1=1560fb00508c128fc9935a68e04b6c3b"
            "253c876c80d0eea14a9b0e97e21a5067,v0=6ffbb59b2300aae63f272406069a9788598b792a",
        },
        b'{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","type":"checkout.session.completed"}',
        now=1492774577,
        external_id="evt_1NG8Du2eZvKYlo2CUI79vXWy",
    ),
    "shopify": Example(
        Scheme.SHOPIFY,
        "hush-hush-hush",
        {
            **JSON,
            "x-shopify-webhook-id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
            "x-shopify-hmac-sha256": "Jidcf+qKOpG7KbgKRb+Y7/o4gvdUaBJnqqAzVSl3W4Y=",
        },
        b'{"id":820982911946154508,"email":"jon@example.com"}',
        external_id="b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    ),
    "mailgun": Example(
        Scheme.MAILGUN,
        "key-3ax6xnjp29jd6fds4gc373sgvjxteol0",
        JSON,
        MAILGUN_BODY,
        now=1529006854,
        external_id="a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0",
    ),
}
OTHERS = {
    "basic": Example(
        Scheme.BASIC,
        "shop:open sesame",
        {"authorization": f"Basic {base64.b64encode(b'shop:open sesame').decode()}"},
        b"{}",
    ),
    # As Paddle does it: time and signature in one header, joined by a colon.
    "generic_hmac": Example(
        Scheme.GENERIC_HMAC,
        "pdl_ntfset_01",
        {
            "paddle-signature": "ts=1671552777;h1=1392e09292685764f392684828ba5993"
            "17a2eb824f778e99961408e8457e850f"
        },
        b'{"event_id":"evt_01"}',
        now=1671552777,
        signing=Signing(
            header="paddle-signature",
            template="{timestamp}:{body}",
            signature_key="h1",
            timestamp_key="ts",
        ),
    ),
}
EXAMPLES = PUBLISHED | OPENSSL | OTHERS
MACS = sorted(set(EXAMPLES) - {"basic"})
TIMED = sorted({"standard", "slack", "stripe", "mailgun", "generic_hmac"})


def example(name: str) -> Example:
    return EXAMPLES[name]


def test_every_scheme_has_an_example() -> None:
    assert set(EXAMPLES) == set(Scheme)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
class TestEachScheme:
    def test_a_request_as_the_vendor_sends_it_is_good(self, name: str) -> None:
        verdict = example(name).check()
        assert (verdict.reason, verdict.matched) == (None, 0)
        assert verdict.external_id == example(name).external_id

    def test_another_secret_is_no_use(self, name: str) -> None:
        other = {"standard": "whsec_" + base64.b64encode(b"x" * 24).decode(), "basic": "a:bcdefgh"}
        assert example(name).check(secrets=[other.get(name, "another secret")]).reason == (
            Reason.WRONG_SIGNATURE
        )

    def test_any_of_several_secrets_will_do(self, name: str) -> None:
        other = {"standard": "whsec_" + base64.b64encode(b"x" * 24).decode(), "basic": "a:bcdefgh"}
        secrets = [other.get(name, "another secret"), example(name).secret]
        assert example(name).check(secrets=secrets).matched == 1

    def test_without_its_headers_it_is_refused(self, name: str) -> None:
        verdict = example(name).check(headers={}, body=b"{}")
        assert verdict.reason == Reason.SIGNATURE_MISSING

    @pytest.mark.parametrize(
        "junk", ["", "x", "=", "v1,", "t=,v1=", "sha256=zz", "\u00ff", "," * 999]
    )
    def test_junk_in_its_place_is_refused(self, name: str, junk: str) -> None:
        headers = {
            header: junk if header not in {"content-type", "webhook-id"} else value
            for header, value in example(name).incoming.headers.items()
        }
        body = b"junk" if name == "mailgun" else example(name).incoming.body
        assert not example(name).check(headers=headers, body=body).is_good


@pytest.mark.parametrize("name", sorted(set(MACS) - {"mailgun", "twilio"}))
@given(body=st.binary(max_size=200))
def test_another_body_is_no_use(name: str, body: bytes) -> None:
    if body != example(name).incoming.body:
        assert not example(name).check(body=body).is_good


def test_mailgun_signs_only_a_token_so_that_this_is_the_events_id() -> None:
    altered = example("mailgun").check(body=MAILGUN_BODY.replace(b"delivered", b"complained"))
    assert altered.is_good
    assert altered.external_id == example("mailgun").external_id


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (
            "application/x-www-form-urlencoded",
            b"recipient=a%40b&timestamp={timestamp}&token={token}&signature={signature}",
        ),
        (
            "multipart/form-data; boundary=x",
            (
                b'--x\r\nContent-Disposition: form-data; name="timestamp"\r\n\r\n{timestamp}\r\n'
                b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n{token}\r\n'
                b'--x\r\nContent-Disposition: form-data; name="signature"\r\n\r\n{signature}\r\n'
                b'--x\r\nContent-Disposition: form-data; name="attachment-1"; filename="a"\r\n\r\n'
                b"signature\r\n--x--\r\n"
            ),
        ),
    ],
)
def test_mailgun_s_routes_send_forms_of_both_kinds(kind: str, body: bytes) -> None:
    signed = orjson.loads(MAILGUN_BODY)["signature"]
    for name in ("timestamp", "token", "signature"):
        body = body.replace(b"{%b}" % name.encode(), str(signed[name]).encode())
    verdict = example("mailgun").check(headers={"content-type": kind}, body=body)
    assert verdict.is_good
    assert verdict.external_id == signed["token"]


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize(("late_s", "reason"), [(301, Reason.TOO_OLD), (-301, Reason.IN_FUTURE)])
def test_a_time_out_of_bounds_is_refused_both_ways(name: str, late_s: int, reason: Reason) -> None:
    verdict = example(name).check(late_s=late_s)
    assert (verdict.reason, verdict.matched, verdict.skew_s) == (reason, 0, late_s)
    assert example(name).check(late_s=299 * (late_s // 301)).is_good


class TestStandard:
    def test_it_agrees_with_the_public_library(self) -> None:
        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        now = utc_now()
        signature = Webhook(secret).sign("msg_1", now, '{"a":"ü"}')
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": f"v1a,bm8= v1,bm8= {signature}",
        }
        made = Example(Scheme.STANDARD, secret, headers, '{"a":"ü"}'.encode(), now=now.timestamp())
        assert made.check().is_good
        svix = {name.replace("webhook-", "svix-"): value for name, value in headers.items()}
        assert made.check(headers=svix).external_id == "msg_1"

    def test_a_dot_in_the_id_moves_nothing_from_one_part_to_another(self) -> None:
        good = example("standard")
        # `id.timestamp` cut elsewhere gives the same signed bytes.
        name = f"{good.incoming.headers['webhook-id']}.1614265330"
        body = good.incoming.body
        key = key_of(good.scheme, good.signing, good.secret)
        signed = hmac.digest(key, f"{name}.1614265330.".encode() + body, "sha256")
        headers = {
            "webhook-id": name,
            "webhook-timestamp": "1614265330",
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }
        assert good.check(headers=headers).reason == Reason.SIGNATURE_MALFORMED

    def test_two_signatures_of_which_one_is_good(self) -> None:
        headers = dict(example("standard").incoming.headers)
        headers["webhook-signature"] = "v1,AAAA " + headers["webhook-signature"]
        assert example("standard").check(headers=headers).is_good
        headers["webhook-signature"] = "v1,AAAA " * 20 + headers["webhook-signature"]
        assert not example("standard").check(headers=headers).is_good


class TestTwilio:
    def test_a_json_body_is_signed_by_its_digest_in_the_url(self) -> None:
        body = b'{"a":1}'
        url = f"https://x.example/hook?bodySHA256={hashlib.sha256(body).hexdigest()}"
        signed = base64.b64encode(hmac.digest(b"12345", url.encode(), "sha1")).decode()
        headers = {**JSON, "x-twilio-signature": signed}
        made = Example(Scheme.TWILIO, "12345", headers, body, url=url)
        assert made.check().is_good
        assert not made.check(body=b'{"a":2}').is_good

    def test_the_address_is_part_of_it(self) -> None:
        assert not example("twilio").check(url="https://mycompany.com/myapp.php").is_good

    @given(st.dictionaries(st.sampled_from("abcDEF"), st.text(max_size=5), max_size=6))
    def test_another_form_is_no_use(self, form: dict[str, str]) -> None:
        assert not example("twilio").check(body=urlencode(form).encode()).is_good


class TestGeneric:
    def signed(self, signing: Signing, message: bytes, algorithm: str = "sha256") -> bytes:
        return hmac.digest(b"secret-of-8", message, algorithm)

    @pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
    @pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
    def test_each_algorithm_and_encoding(self, algorithm: Any, encoding: Any) -> None:
        signing = Signing(header="x-sig", algorithm=algorithm, encoding=encoding, prefix="sig=")
        mac = self.signed(signing, b"body", algorithm)
        text = {
            "hex": mac.hex(),
            "base64": base64.b64encode(mac).decode(),
            "base64url": base64.urlsafe_b64encode(mac).decode().rstrip("="),
        }[encoding]
        made = Example(
            Scheme.GENERIC_HMAC, "secret-of-8", {"x-sig": f"sig={text}"}, b"body", signing=signing
        )
        assert made.check().is_good
        assert not made.check(headers={"x-sig": text}).is_good

    def test_a_template_of_everything(self) -> None:
        signing = Signing(
            header="x-sig",
            template="{id}|{timestamp}|{url}|{header:x-topic}|{body}!",
            timestamp_header="x-time",
            timestamp_unit="rfc3339",
            id_header="x-id",
        )
        signed = b"7|2023-11-14T22:13:20Z|https://x.example/h|orders|{}!"
        headers = {
            "x-sig": self.signed(signing, signed).hex(),
            "x-time": "2023-11-14T22:13:20Z",
            "x-id": "7",
            "x-topic": "orders",
        }
        made = Example(
            Scheme.GENERIC_HMAC,
            "secret-of-8",
            headers,
            b"{}",
            url="https://x.example/h",
            external_id="7",
            signing=signing,
        )
        assert made.check().external_id == "7"
        for name in headers:
            altered = {**headers, name: "2023-11-14T22:13:21Z"}
            assert not made.check(headers=altered).is_good
        assert not made.check(headers={**headers, "x-time": "2023-11-14T22:13:20"}).is_good

    def test_milliseconds(self) -> None:
        signing = Signing(
            header="x-sig",
            template="{timestamp}{body}",
            timestamp_header="x-time",
            timestamp_unit="ms",
        )
        headers = {
            "x-time": "1700000000123",
            "x-sig": self.signed(signing, b"1700000000123x").hex(),
        }
        made = Example(Scheme.GENERIC_HMAC, "secret-of-8", headers, b"x", signing=signing)
        assert made.check().is_good
        assert made.check(late_s=400).reason == Reason.TOO_OLD

    @pytest.mark.parametrize(
        "template", ["", "{timestamp}", "{boddy}", "{body}{", "{header:}{body}"]
    )
    def test_a_template_that_signs_too_little_or_nothing_known(self, template: str) -> None:
        with pytest.raises(ValueError, match=r"knows|must contain"):
            check_template(template)


@pytest.mark.parametrize(
    ("scheme", "secret", "signing"),
    [
        (Scheme.STANDARD, "whsec_not base64!", Signing()),
        (Scheme.STANDARD, "whsec_", Signing()),
        (Scheme.GITHUB, "", Signing()),
        (Scheme.GITHUB, "with\nbreak", Signing()),
        (Scheme.BASIC, "no-colon-in-it", Signing()),
        (Scheme.GENERIC_HMAC, "zz", Signing(key_encoding="hex")),
    ],
)
def test_what_can_be_no_secret(scheme: Scheme, secret: str, signing: Signing) -> None:
    with pytest.raises(ValueError, match="must be"):
        key_of(scheme, signing, secret)
