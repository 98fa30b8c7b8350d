"""The signature debugger: why a request was refused, for the owner of its source alone.

It tries what usually goes wrong (clocks, a secret of yesterday, a framework that re-wrote the JSON)
and says which of it would have made the signature right. Run off the event loop: it signs often.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from chatserver.webhooks.sources.claims import (
    Algorithm,
    Claim,
    Incoming,
    Reason,
    Scheme,
    Signing,
    UnsignedError,
    is_form,
)
from chatserver.webhooks.sources.signatures import Verdict, key_of, matching, read

# Larger bodies are not re-encoded: it would take a thread for seconds.
MOST_BODY: Final = 256 * 1024
_ALGORITHMS: Final[tuple[Algorithm, ...]] = ("sha1", "sha256", "sha384", "sha512")
_MARKS: Final[Mapping[str, Scheme]] = {
    "webhook-signature": Scheme.STANDARD,
    "svix-signature": Scheme.STANDARD,
    "x-hub-signature-256": Scheme.GITHUB,
    "stripe-signature": Scheme.STRIPE,
    "x-slack-signature": Scheme.SLACK,
    "x-shopify-hmac-sha256": Scheme.SHOPIFY,
    "x-twilio-signature": Scheme.TWILIO,
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why, in a word and in a sentence; `details` are facts without secrets."""

    reason: str
    explanation: str
    details: dict[str, Any] = field(default_factory=dict)


def diagnose(
    scheme: Scheme,
    signing: Signing,
    incoming: Incoming,
    verdict: Verdict,
    *,
    live: Sequence[str],
    ended: Sequence[str],
    tolerance_s: float,
) -> Diagnosis:
    """Say why a request was refused; `live` and `ended` are the source's secrets as texts."""
    details: dict[str, Any] = {"body_bytes": len(incoming.body)}
    if verdict.skew_s is not None:
        details["skew_s"] = round(verdict.skew_s)
    if verdict.reason in {Reason.SIGNATURE_MISSING, Reason.SIGNATURE_MALFORMED}:
        return _unsigned(scheme, incoming, verdict, details)
    if verdict.reason in {Reason.TOO_OLD, Reason.IN_FUTURE}:
        return _skewed(verdict, details, tolerance_s)
    return _mismatch(scheme, signing, incoming, live, ended, details)


def _unsigned(
    scheme: Scheme, incoming: Incoming, verdict: Verdict, details: dict[str, Any]
) -> Diagnosis:
    others = sorted({it for mark, it in _MARKS.items() if mark in incoming.headers} - {scheme})
    if others:
        return Diagnosis(
            "wrong_scheme",
            f"The request is signed the way of {others[0]}; this source expects {scheme}.",
            details | {"looks_like": [str(each) for each in others]},
        )
    return Diagnosis(str(verdict.reason), f"The request can't be checked: {verdict.what}.", details)


def _skewed(verdict: Verdict, details: dict[str, Any], tolerance_s: float) -> Diagnosis:
    seconds = abs(round(verdict.skew_s or 0))
    side = "behind" if verdict.reason is Reason.TOO_OLD else "ahead of"
    return Diagnosis(
        "clock_skew",
        f"The signature is right, but its time is {seconds} s {side} the server's clock;"
        f" this source takes {round(tolerance_s)} s. Either a clock is wrong, or the request was"
        " held up on its way.",
        details | {"tolerance_s": round(tolerance_s), "direction": str(verdict.reason)},
    )


def _mismatch(
    scheme: Scheme,
    signing: Signing,
    incoming: Incoming,
    live: Sequence[str],
    ended: Sequence[str],
    details: dict[str, Any],
) -> Diagnosis:
    keys = _keys(scheme, signing, live)

    def fits(tried: Incoming, with_keys: Sequence[bytes]) -> bool:
        try:
            return matching(with_keys, read(scheme, signing, tried)) is not None
        except UnsignedError:
            return False

    if fits(incoming, _keys(scheme, signing, ended)):
        return Diagnosis(
            "secret_ended",
            "The request is signed with a secret of this source that has ended: its sender still"
            " uses the old one.",
            details,
        )
    forms = re_encoded(incoming) if len(incoming.body) <= MOST_BODY else ()
    form = next((it for it, body in forms if fits(replace(incoming, body=body), keys)), None)
    if form is not None:
        return Diagnosis(
            "body_reencoded",
            f"The secret is right, but the body was changed on its way: the signature fits the"
            f" same body {form}. Something between the sender and here (a proxy, a gateway, a"
            " relay) parses and writes it anew; let it pass the raw bytes.",
            details | {"signed_form": form},
        )
    way = next((it for it, key in _misread(live) if fits(incoming, [key])), None)
    if way is not None:
        return Diagnosis(
            "secret_misread",
            f"The sender uses the secret {way}. Store it here the way the sender uses it.",
            details | {"sender_uses": way},
        )
    url = next((it for it in _urls(incoming.url) if fits(replace(incoming, url=it), keys)), None)
    if url is not None:
        return Diagnosis(
            "url_differs",
            "The signature covers the address that the sender called, which is another than the"
            " one this server sees. Set `url` of the source to that address.",
            details | {"sender_called": url, "server_sees": incoming.url},
        )
    return _otherwise(read(scheme, signing, incoming), keys, details)


def _otherwise(claim: Claim, keys: Sequence[bytes], details: dict[str, Any]) -> Diagnosis:
    for algorithm in _ALGORITHMS:
        other = replace(claim, algorithm=algorithm)
        if not claim.proof and matching(keys, other) is not None:
            return Diagnosis(
                "wrong_algorithm",
                f"The sender signs with HMAC-{algorithm}, this source checks"
                f" HMAC-{claim.algorithm}.",
                details | {"sender_uses": algorithm},
            )
    return Diagnosis(
        "wrong_secret",
        "No secret of this source makes this signature, however the body is written: the sender"
        " uses another secret, or somebody else sent this.",
        details,
    )


def _keys(scheme: Scheme, signing: Signing, secrets: Sequence[str]) -> list[bytes]:
    return [key_of(scheme, signing, secret) for secret in secrets]


def _misread(secrets: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    ways: dict[str, Callable[[str], bytes]] = {
        "as text, whole": str.encode,
        "as text, without whsec_": lambda it: it.removeprefix("whsec_").encode(),
        "decoded from base64": lambda it: base64.b64decode(
            it.removeprefix("whsec_") + "==", validate=False
        ),
        "decoded from hex": bytes.fromhex,
        "with a line break at its end": lambda it: f"{it}\n".encode(),
        "without the blanks around it": lambda it: it.strip().encode(),
    }
    for secret in secrets:
        for name, way in ways.items():
            try:
                key = way(secret)
            except ValueError:
                continue
            if key:
                yield name, key


def re_encoded(incoming: Incoming) -> Iterator[tuple[str, bytes]]:
    """Give a body in the other ways in which frameworks write the same content."""
    body = incoming.body
    yield "without the white space around it", body.strip()
    yield "with a line break at its end", body + b"\n"
    yield "with other line ends", body.replace(b"\r\n", b"\n")
    yield "with other line ends", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "without a byte order mark", body.removeprefix(b"\xef\xbb\xbf")
    if is_form(incoming.headers):
        try:
            fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            return
        yield "with its form encoded anew", urlencode(fields).encode()
        return
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    for escapes, charset in ((False, "UTF-8"), (True, "\\u escapes")):
        for sort in (False, True):
            order = ", members sorted" if sort else ""
            forms = {
                "as compact JSON": {"separators": (",", ":")},
                "as JSON with a blank after each comma and colon": {},
                "as JSON indented by 2": {"indent": 2},
                "as JSON indented by 4": {"indent": 4},
            }
            for name, options in forms.items():
                text = json.dumps(value, ensure_ascii=escapes, sort_keys=sort, **options)  # type: ignore[arg-type]  # keywords of json.dumps
                raw = text.encode("utf-8", "surrogatepass")
                yield f"{name} ({charset}{order})", raw
                # PHP writes `\/`, Go `\u003c`.
                yield f"{name} ({charset}{order}, slashes escaped)", raw.replace(b"/", b"\\/")
                go = raw.replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
                yield f"{name} ({charset}{order}, <>& escaped)", go.replace(b"&", b"\\u0026")


def _urls(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    if not parts.netloc:
        return
    for scheme in ("https", "http"):
        for host in (parts.netloc, parts.hostname or "", f"{parts.hostname}:443"):
            for path in (parts.path, parts.path.rstrip("/"), parts.path + "/"):
                for query in (parts.query, ""):
                    other = urlunsplit((scheme, host, path, query, ""))
                    if other != url:
                        yield other
