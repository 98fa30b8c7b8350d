"""A request from outside, and what it claims to be signed by: the words of all schemes."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl

import orjson
from multipart import MultipartSegment, PushMultipartParser, parse_options_header

Algorithm: TypeAlias = Literal["sha1", "sha256", "sha384", "sha512"]
Encoding: TypeAlias = Literal["hex", "base64", "base64url"]

# More signatures than this are no rotation of secrets.
MOST_SIGNATURES: Final = 16
MOST_FIELDS: Final = 1000
_LATIN: Final = frozenset({"iso-8859-1", "latin-1", "windows-1252", "cp1252"})
_DIGITS: Final = re.compile(r"[0-9]{1,16}")


class Scheme(StrEnum):
    STANDARD = "standard"
    GITHUB = "github"
    STRIPE = "stripe"
    SLACK = "slack"
    SHOPIFY = "shopify"
    TWILIO = "twilio"
    MAILGUN = "mailgun"
    GENERIC_HMAC = "generic_hmac"
    BASIC = "basic"


class Reason(StrEnum):
    """Why a request was refused; only the source's owner is told."""

    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_MALFORMED = "signature_malformed"
    TOO_OLD = "too_old"
    IN_FUTURE = "in_future"
    WRONG_SIGNATURE = "wrong_signature"


class UnsignedError(Exception):
    """A request carries nothing that could be checked. `what` names what is missing or wrong."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came. Names of headers are in lower case; `url` is what its sender called."""

    headers: Mapping[str, str]
    body: bytes
    url: str = ""


@dataclass(frozen=True, slots=True)
class Signing:
    """How `generic_hmac` signs; the other schemes know. See `docs/inbound-webhooks.md`."""

    header: str = ""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    template: str = "{body}"
    prefix: str = ""
    # In a header like `t=1,v1=abc`: which member is the signature, and which the time.
    signature_key: str | None = None
    timestamp_key: str | None = None
    timestamp_header: str | None = None
    timestamp_unit: Literal["s", "ms", "rfc3339"] = "s"
    id_header: str | None = None
    key_encoding: Literal["text", "hex", "base64"] = "text"

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> "Signing":
        """Read how a source's requests are signed, as its row keeps it."""
        return cls(**members)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request claims: one of `signatures` is the MAC of `message`, made at `signed_at`.

    `proof`: not a MAC but the secret itself (`basic`).
    """

    signatures: Sequence[bytes] = field(repr=False)
    message: bytes = field(repr=False)
    algorithm: Algorithm = "sha256"
    signed_at: float | None = None
    external_id: str | None = None
    # The id is this member of a JSON body, which is not read before it is known to be signed.
    id_member: str | None = None
    proof: bool = False


def is_form(headers: Mapping[str, str]) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/x-www-form-urlencoded"


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """Read the fields of a form, in order; of one that is no form, none."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return []


def fields_of(headers: Mapping[str, str], body: bytes) -> list[tuple[str, Any]] | None:
    """Read the fields of a form of either kind, in order; None: it is no form.

    Of a file its name, kind and size are told. Costs a walk over the body, whatever stands in it.
    """
    if is_form(headers):
        return list(form_fields(body))
    kind, options = parse_options_header(headers.get("content-type", ""))
    if kind != "multipart/form-data":
        return None
    found: list[tuple[str, Any]] = []
    try:
        with PushMultipartParser(
            options.get("boundary", ""), content_length=len(body), max_segment_count=MOST_FIELDS
        ) as parser:
            part: MultipartSegment | None = None
            content = bytearray()
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    part, content = event, bytearray()
                elif event:
                    content += event
                elif part is not None and part.name is not None:
                    found.append((part.name, _part(part, bytes(content))))
    except ValueError:
        return []
    return found


def _part(part: MultipartSegment, content: bytes) -> str | dict[str, Any]:
    if part.filename is not None:
        kind = part.content_type or "application/octet-stream"
        return {"filename": part.filename, "content_type": kind, "size": len(content)}
    # What vendors say in practice; other codecs may take long, or be no texts.
    is_latin = (part.charset or "").lower() in _LATIN
    return content.decode("cp1252" if is_latin else "utf-8", "replace")


def header_of(incoming: Incoming, name: str) -> str:
    value = incoming.headers.get(name, "")
    if not value:
        raise missing_header(name)
    return value


def missing_header(name: str) -> UnsignedError:
    return UnsignedError(Reason.SIGNATURE_MISSING, f"there is no header {name}")


def pairs_of(text: str) -> list[tuple[str, str]]:
    split = (each.strip().partition("=") for each in re.split(r"[,;]", text))
    return [(name, value) for name, _, value in split]


def unprefixed(given: str, prefix: str, where: str) -> str:
    if not given.startswith(prefix):
        raise UnsignedError(Reason.SIGNATURE_MALFORMED, f"{where} does not begin with {prefix}")
    return given[len(prefix) :]


def signatures_of(given: Sequence[str], encoding: Encoding, where: str) -> list[bytes]:
    found = []
    for text in given[:MOST_SIGNATURES]:
        try:
            found.append(decoded(text, encoding, ""))
        except ValueError:
            continue
    if not found:
        raise UnsignedError(
            Reason.SIGNATURE_MALFORMED, f"{where} has no signature in {encoding} that we know"
        )
    return found


def decoded(text: str, encoding: Encoding, problem: str) -> bytes:
    try:
        if encoding == "hex":
            decoded = bytes.fromhex(text)
        elif encoding == "base64url":
            decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        else:
            decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ValueError(problem) from error
    if not decoded:
        raise ValueError(problem)
    return decoded


def moment_of(text: str, where: str, unit: str = "s") -> float:
    """Read a time as Unix seconds.

    Raises:
        UnsignedError: it is none.
    """
    found = _rfc3339(text) if unit == "rfc3339" else _unix(text)
    if found is None:
        raise UnsignedError(Reason.SIGNATURE_MALFORMED, f"{where} is not a time")
    return found / 1000 if unit == "ms" else found


def _unix(text: str) -> float | None:
    # `int` alone would also take signs, blanks and underscores.
    return float(text) if _DIGITS.fullmatch(text) is not None else None


def _rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()


def object_of(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def text_member(body: bytes, name: str) -> str | None:
    found = object_of(body).get(name)
    return found if isinstance(found, str) and found else None
