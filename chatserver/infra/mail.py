"""A mail: what it says, how it is written, and what became of trying to hand it over."""

import binascii
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import lru_cache
from typing import Final, Literal, TypeAlias

# Names that we write ourselves, or that would change who is told or where answers go.
_OURS: Final = frozenset(
    {
        *("from", "to", "cc", "bcc", "sender", "subject", "date", "message-id", "reply-to"),
        *("return-path", "received", "mime-version", "dkim-signature", "content-type"),
        *("content-transfer-encoding", "content-disposition", "list-unsubscribe"),
        *("list-unsubscribe-post", "authentication-results", "delivered-to"),
    }
)
_HEADER_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_POLICY: Final = SMTP.clone(max_line_length=78)
_LONGEST_HEADER: Final = 998
_LONGEST_LINE: Final = 76
# What stands for itself: no quoting, no encoding.
_PLAIN_NAME: Final = re.compile(r"(?:[A-Za-z0-9!#$%&'*+/^_`{|}~-]+(?: (?=[^ ])|$))*")
_PLAIN_BOX: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+")
_PLAIN_TEXT: Final = re.compile(rb"[\t\r\n\x20-\x7e]*")

Kind: TypeAlias = Literal[
    "accepted",  # whoever took it answers for it from now on
    "retryable",  # not taken; it may be later
    "throttled",  # not taken: too much at once
    "ambiguous",  # nobody can know: it was handed over, and the answer never came
    "recipient",  # this recipient will never be reached
    "configuration",  # the sender's own settings are wrong: nobody is reached until they are mended
    "content",  # this mail is not wanted by whoever was asked to take it
]
Phase: TypeAlias = Literal[
    "compose", "resolve", "connect", "tls", "auth", "sender", "recipient", "data", "answer", "done"
]


class MailInvalidError(ValueError):
    """A mail can't be written like this. The text names the part, never its content."""


@dataclass(frozen=True, slots=True)
class Attachment:
    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail to one recipient: nobody ever sees who else got it.

    `message_id` is the same for all attempts, through whomever: receivers drop what they have.
    `unsubscribe_url` makes it a mail that can be unsubscribed from by one click (RFC 8058).
    """

    sender: str
    recipient: str
    subject: str
    message_id: str
    at: datetime
    text: str | None = None
    html: str | None = None
    sender_name: str | None = None
    recipient_name: str | None = None
    reply_to: str | None = None
    unsubscribe_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    attachments: Sequence[Attachment] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one attempt. `text` is the other side's own words, at most 500 characters."""

    kind: Kind
    phase: Phase
    code: int | None = None
    # RFC 3463, as `5.1.1`.
    enhanced: str | None = None
    text: str = ""
    retry_after_s: float | None = None
    peer: str | None = None
    provider_message_id: str | None = None


@lru_cache(maxsize=1024)
def check_address(value: str) -> str:
    """Give an address as it is compared and sent to, its domain in ASCII and lower case.

    Raises:
        MailInvalidError: it is none, or needs what most servers can't do (SMTPUTF8).
    """
    # Its tables are worth 20 ms of a start, and most processes write no mail.
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415

    try:
        found = validate_email(value, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise MailInvalidError(f"is no e-mail address: {error}") from error
    return f"{found.ascii_local_part}@{found.ascii_domain}" if found.ascii_local_part else value


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse header fields that are malformed, or not the caller's to set.

    Raises:
        MailInvalidError
    """
    for name, value in headers.items():
        if _HEADER_NAME.fullmatch(name) is None or name.lower() in _OURS:
            raise MailInvalidError("a header has a name that can't be set")
        if len(value) > _LONGEST_HEADER or not value.isprintable():
            raise MailInvalidError("a header must be printable text of one line")


def compose(mail: Mail) -> bytes:
    """Write a mail as RFC 5322 has it, with lines that end in CRLF.

    Raises:
        MailInvalidError: a part would not be one line, or there is nothing in it.
    """
    if mail.text is None and mail.html is None:
        raise MailInvalidError("a mail needs text or html")
    check_headers(mail.headers)
    try:
        if not mail.attachments:
            return b"".join([*map(_written, _head(mail)), *_body(mail)])
        message = EmailMessage(policy=_POLICY)
        for name, value in _head(mail):
            message[name] = value
        _write_body(message, mail)
        return message.as_bytes()
    except MailInvalidError:
        raise
    except (ValueError, UnicodeError, IndexError) as error:
        raise MailInvalidError(f"the mail can't be written ({type(error).__name__})") from error


def _head(mail: Mail) -> Iterator[tuple[str, str | Address]]:
    """Give the header fields, each of them one line of printable text."""
    yield "From", _address(mail.sender_name, mail.sender)
    yield "To", _address(mail.recipient_name, mail.recipient)
    yield "Subject", _line(mail.subject)
    yield "Date", format_datetime(mail.at)
    yield "Message-ID", _line(mail.message_id)
    if mail.reply_to is not None:
        yield "Reply-To", _address(None, mail.reply_to)
    if mail.unsubscribe_url is not None:
        yield "List-Unsubscribe", f"<{_line(mail.unsubscribe_url)}>"
        yield "List-Unsubscribe-Post", "List-Unsubscribe=One-Click"
    yield from mail.headers.items()


def _written(field: tuple[str, str | Address]) -> bytes:
    """Write a field: as it is where nothing needs folding or encoding, which the library does.

    It takes apart and refolds whatever it is given: most of the CPU of a mail, measured.
    """
    name, value = field
    if isinstance(value, Address):
        text = f"{value.display_name} <{value.addr_spec}>" if value.display_name else str(value)
        is_plain = bool(
            _PLAIN_NAME.fullmatch(value.display_name) and _PLAIN_BOX.fullmatch(value.addr_spec)
        )
    else:
        text = value
        is_plain = bool(value) and value.isascii() and "=?" not in value
    if is_plain and len(name) + len(text) + 2 <= _LONGEST_LINE:
        return f"{name}: {text}\r\n".encode()
    _, header = _POLICY.header_store_parse(name, value)
    folded: str = header.fold(policy=_POLICY)
    return folded.encode()


def _body(mail: Mail) -> Iterator[bytes]:
    parts = [
        (subtype, text)
        for subtype, text in (("plain", mail.text), ("html", mail.html))
        if text is not None
    ]
    yield b"MIME-Version: 1.0\r\n"
    if len(parts) == 1:
        yield _part(*parts[0])
        return
    boundary = f"=_{secrets.token_hex(16)}"
    yield f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n'.encode()
    for subtype, text in parts:
        # The line end before a boundary belongs to that.
        yield b"--%s\r\n%s\r\n" % (boundary.encode(), _part(subtype, text))
    yield f"--{boundary}--\r\n".encode()


def _part(subtype: str, text: str) -> bytes:
    lines = text.encode().splitlines()
    content = b"".join(line + b"\r\n" for line in lines) or b"\r\n"
    encoding = "7bit"
    if not _PLAIN_TEXT.fullmatch(content) or max(map(len, lines), default=0) > _LONGEST_LINE:
        encoding, content = "quoted-printable", binascii.b2a_qp(content)
    charset = "us-ascii" if encoding == "7bit" else "utf-8"
    return (
        f'Content-Type: text/{subtype}; charset="{charset}"\r\n'
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    ).encode() + content


def _write_body(message: EmailMessage, mail: Mail) -> None:
    if mail.text is not None:
        message.set_content(mail.text)
        if mail.html is not None:
            message.add_alternative(mail.html, subtype="html")
    elif mail.html is not None:
        message.set_content(mail.html, subtype="html")
    for each in mail.attachments:
        main, _, sub = each.content_type.partition("/")
        message.add_attachment(each.content, maintype=main, subtype=sub, filename=_line(each.name))


def _address(name: str | None, address: str) -> Address:
    checked = check_address(address)
    local, _, domain = checked.rpartition("@")
    return Address(_line(name or ""), local, domain)


def _line(value: str) -> str:
    if not value.isprintable():
        raise MailInvalidError("a header must be printable text of one line")
    return value
