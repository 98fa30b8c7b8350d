"""How each vendor signs what it sends: which bytes, and where the signature stands."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from chatserver.webhooks.sources.claims import (
    Claim,
    Incoming,
    Reason,
    Scheme,
    Signing,
    UnsignedError,
    fields_of,
    form_fields,
    header_of,
    is_form,
    missing_header,
    moment_of,
    object_of,
    pairs_of,
    signatures_of,
    unprefixed,
)

_PLACEHOLDER: Final = re.compile(r"\{(body|timestamp|id|url|header:[A-Za-z0-9-]{1,64})\}")


def _standard(_: Signing, incoming: Incoming) -> Claim:
    for prefix in ("webhook", "svix"):
        if f"{prefix}-signature" in incoming.headers:
            break
    else:
        raise missing_header("webhook-signature")
    name = header_of(incoming, f"{prefix}-id")
    if "." in name:
        # `a.b` signed at 1 would else be `a` signed at `b.1`.
        raise UnsignedError(Reason.SIGNATURE_MALFORMED, f"{prefix}-id contains a dot")
    stamp = header_of(incoming, f"{prefix}-timestamp")
    given = [
        value
        for version, _, value in (
            each.partition(",") for each in header_of(incoming, f"{prefix}-signature").split(" ")
        )
        if version == "v1"
    ]
    return Claim(
        signatures_of(given, "base64", f"{prefix}-signature"),
        f"{name}.{stamp}.".encode() + incoming.body,
        signed_at=moment_of(stamp, f"{prefix}-timestamp"),
        external_id=name,
    )


def _github(_: Signing, incoming: Incoming) -> Claim:
    given = header_of(incoming, "x-hub-signature-256")
    return Claim(
        signatures_of(
            [unprefixed(given, "sha256=", "x-hub-signature-256")], "hex", "the signature"
        ),
        incoming.body,
        external_id=incoming.headers.get("x-github-delivery"),
    )


def _stripe(_: Signing, incoming: Incoming) -> Claim:
    pairs = pairs_of(header_of(incoming, "stripe-signature"))
    stamp = next((value for name, value in pairs if name == "t"), None)
    if stamp is None:
        raise UnsignedError(Reason.SIGNATURE_MALFORMED, "stripe-signature has no t=")
    return Claim(
        signatures_of([v for name, v in pairs if name == "v1"], "hex", "stripe-signature"),
        f"{stamp}.".encode() + incoming.body,
        signed_at=moment_of(stamp, "stripe-signature"),
        id_member="id",
    )


def _slack(_: Signing, incoming: Incoming) -> Claim:
    given = header_of(incoming, "x-slack-signature")
    stamp = header_of(incoming, "x-slack-request-timestamp")
    return Claim(
        signatures_of([unprefixed(given, "v0=", "x-slack-signature")], "hex", "x-slack-signature"),
        f"v0:{stamp}:".encode() + incoming.body,
        signed_at=moment_of(stamp, "x-slack-request-timestamp"),
        id_member="event_id",
    )


def _shopify(_: Signing, incoming: Incoming) -> Claim:
    given = header_of(incoming, "x-shopify-hmac-sha256")
    return Claim(
        signatures_of([given], "base64", "x-shopify-hmac-sha256"),
        incoming.body,
        external_id=incoming.headers.get("x-shopify-webhook-id"),
    )


def _twilio(_: Signing, incoming: Incoming) -> Claim:
    given = signatures_of(
        [header_of(incoming, "x-twilio-signature")], "base64", "x-twilio-signature"
    )
    if is_form(incoming.headers):
        fields: dict[str, set[str]] = {}
        for name, value in form_fields(incoming.body):
            fields.setdefault(name, set()).add(value)
        signed = "".join(name + value for name in sorted(fields) for value in sorted(fields[name]))
    else:
        # The URL is signed, and names the body's digest.
        query = dict(parse_qsl(urlsplit(incoming.url).query))
        digest = hashlib.sha256(incoming.body).hexdigest()
        if not hmac.compare_digest(query.get("bodySHA256", "").encode(), digest.encode()):
            raise UnsignedError(Reason.SIGNATURE_MALFORMED, "bodySHA256 is not the body's digest")
        signed = ""
    return Claim(
        given,
        (incoming.url + signed).encode(),
        algorithm="sha1",
        external_id=incoming.headers.get("i-twilio-idempotency-token"),
    )


def _mailgun(_: Signing, incoming: Incoming) -> Claim:
    fields: Mapping[str, Any]
    form = fields_of(incoming.headers, incoming.body)
    if form is not None:
        fields = dict(form)
    else:
        found = object_of(incoming.body).get("signature")
        fields = found if isinstance(found, dict) else {}
    stamp, token, given = (fields.get(name) for name in ("timestamp", "token", "signature"))
    if not isinstance(token, str) or not isinstance(given, str) or not token:
        raise UnsignedError(Reason.SIGNATURE_MISSING, "the body has no signature")
    also = fields.get("parent-signature")
    parents = [also] if isinstance(also, str) else []
    return Claim(
        signatures_of([given, *parents], "hex", "signature"),
        f"{stamp}{token}".encode("utf-8", "replace"),
        signed_at=moment_of(str(stamp), "timestamp"),
        # The body is not signed: what the signature covers may count only once.
        external_id=token,
    )


def _basic(_: Signing, incoming: Incoming) -> Claim:
    kind, _space, given = header_of(incoming, "authorization").partition(" ")
    if kind.lower() != "basic":
        raise UnsignedError(Reason.SIGNATURE_MALFORMED, "authorization is not Basic")
    try:
        secret = base64.b64decode(given.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnsignedError(Reason.SIGNATURE_MALFORMED, "authorization is not base64") from error
    return Claim([hashlib.sha256(secret).digest()], b"", proof=True)


def _generic(signing: Signing, incoming: Incoming) -> Claim:
    given = header_of(incoming, signing.header)
    stamp = None
    if signing.timestamp_header is not None:
        stamp = header_of(incoming, signing.timestamp_header)
    if signing.signature_key is None:
        candidates = [each for each in re.split(r"[ ,]+", given) if each]
    else:
        pairs = pairs_of(given)
        candidates = [value for name, value in pairs if name == signing.signature_key]
        if signing.timestamp_key is not None:
            stamp = next((value for name, value in pairs if name == signing.timestamp_key), None)
            if stamp is None:
                raise UnsignedError(
                    Reason.SIGNATURE_MALFORMED, f"{signing.header} has no {signing.timestamp_key}="
                )
    bare = [
        each.removeprefix(signing.prefix) for each in candidates if each.startswith(signing.prefix)
    ]
    external_id = None
    if signing.id_header is not None:
        external_id = header_of(incoming, signing.id_header)
    return Claim(
        signatures_of(bare, signing.encoding, signing.header),
        _filled(signing.template, incoming, stamp, external_id),
        signing.algorithm,
        signed_at=None if stamp is None else moment_of(stamp, "timestamp", signing.timestamp_unit),
        external_id=external_id,
    )


def check_template(template: str) -> None:
    """Check what `generic_hmac` signs: the body must be in it, and nothing unknown.

    Raises:
        ValueError: the text says what is wrong.
    """
    rest = _PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        raise ValueError("knows {body}, {timestamp}, {id}, {url} and {header:NAME}")
    if "{body}" not in template:
        raise ValueError("must contain {body}: what is not signed may be altered")


def _filled(template: str, incoming: Incoming, stamp: str | None, name: str | None) -> bytes:
    parts: list[bytes] = []
    at = 0
    for found in _PLACEHOLDER.finditer(template):
        parts.append(template[at : found.start()].encode())
        at = found.end()
        what = found.group(1)
        if what == "body":
            parts.append(incoming.body)
        elif what == "url":
            parts.append(incoming.url.encode())
        elif what.startswith("header:"):
            parts.append(header_of(incoming, what.removeprefix("header:").lower()).encode())
        else:
            value = stamp if what == "timestamp" else name
            if value is None:
                raise UnsignedError(Reason.SIGNATURE_MISSING, f"there is no {what}")
            parts.append(value.encode("utf-8", "surrogateescape"))
    parts.append(template[at:].encode())
    return b"".join(parts)


READERS: Final[Mapping[Scheme, Callable[[Signing, Incoming], Claim]]] = {
    Scheme.STANDARD: _standard,
    Scheme.GITHUB: _github,
    Scheme.STRIPE: _stripe,
    Scheme.SLACK: _slack,
    Scheme.SHOPIFY: _shopify,
    Scheme.TWILIO: _twilio,
    Scheme.MAILGUN: _mailgun,
    Scheme.GENERIC_HMAC: _generic,
    Scheme.BASIC: _basic,
}
