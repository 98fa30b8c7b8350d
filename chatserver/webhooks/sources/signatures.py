"""Whether a request is signed by one of a source's secrets.

A scheme reads a request into a `Claim`: which bytes are signed, and by which signatures. Whether a
secret made one of them is decided here, in one place, in constant time, over the raw body.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatserver.webhooks.sources.claims import (
    Claim,
    Incoming,
    Reason,
    Scheme,
    Signing,
    UnsignedError,
    decoded,
    text_member,
)
from chatserver.webhooks.sources.vendors import READERS

LONGEST_ID: Final = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check. `matched` is the place of the secret that fits, also when too late."""

    reason: Reason | None
    matched: int | None = None
    what: str = ""
    # Seconds between the sender's time and ours: positive when the request is old.
    skew_s: float | None = None
    external_id: str | None = None

    @property
    def is_good(self) -> bool:
        return self.reason is None


def verify(
    scheme: Scheme,
    signing: Signing,
    keys: Sequence[bytes],
    incoming: Incoming,
    *,
    now: float,
    tolerance_s: float,
) -> Verdict:
    """Check a request against the keys of a source; `now` is in Unix seconds.

    All keys are tried whatever the first says, and a request without a claim costs as much.
    """
    try:
        claim = read(scheme, signing, incoming)
    except UnsignedError as error:
        matching(keys, Claim([b""], incoming.body))
        return Verdict(error.reason, what=error.what)
    matched = matching(keys, claim)
    skew = None if claim.signed_at is None else now - claim.signed_at
    if matched is None:
        return Verdict(Reason.WRONG_SIGNATURE, skew_s=skew)
    if skew is not None and abs(skew) > tolerance_s:
        late = Reason.TOO_OLD if skew > 0 else Reason.IN_FUTURE
        return Verdict(late, matched, skew_s=skew)
    name = claim.external_id
    if claim.id_member is not None:
        name = text_member(incoming.body, claim.id_member)
    return Verdict(None, matched, skew_s=skew, external_id=name)


def matching(keys: Sequence[bytes], claim: Claim) -> int | None:
    """Give the place of the first key that made one of the signatures."""
    found: int | None = None
    for place, key in enumerate(keys):
        made = key if claim.proof else hmac.digest(key, claim.message, claim.algorithm)
        for given in claim.signatures:
            if hmac.compare_digest(made, given) and found is None:
                found = place
    return found


def read(scheme: Scheme, signing: Signing, incoming: Incoming) -> Claim:
    """Read what a request claims.

    Raises:
        UnsignedError: it claims nothing.
    """
    return READERS[scheme](signing, incoming)


def key_of(scheme: Scheme, signing: Signing, secret: str) -> bytes:
    """Give the bytes that a secret stands for, the way the vendor takes it.

    Raises:
        ValueError: it can't be one; the text says why.
    """
    if not secret or not secret.isascii() or not secret.isprintable():
        raise ValueError("must be printable ASCII")
    if scheme is Scheme.STANDARD:
        return decoded(secret.removeprefix("whsec_"), "base64", "must be whsec_ and base64")
    if scheme is Scheme.GENERIC_HMAC and signing.key_encoding != "text":
        form = signing.key_encoding
        return decoded(secret, form, f"must be {form}")
    if scheme is Scheme.BASIC:
        if ":" not in secret:
            raise ValueError("must be user:password")
        # Two texts of any length compare in constant time by their digests.
        return hashlib.sha256(secret.encode()).digest()
    return secret.encode()


def content_id(body: bytes) -> str:
    """Give the id of a request that has none of its own: what it says."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def short_id(text: str) -> str:
    """Keep a sender's id as it is, if it is short and plain; else its digest stands for it."""
    if len(text) <= LONGEST_ID and text.isascii() and text.isprintable():
        return text
    return content_id(text.encode("utf-8", "surrogatepass"))
