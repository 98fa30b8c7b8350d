from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.infra.mail import Attachment, Mail, MailInvalidError, check_address, compose

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def mail(**members: Any) -> Mail:
    given: dict[str, Any] = {
        "sender": "shop@example.org",
        "recipient": "bob@example.net",
        "subject": "Hello",
        "message_id": "<1@example.org>",
        "at": AT,
        "text": "Hi!",
    }
    return Mail(**(given | members))


def read(content: bytes) -> EmailMessage:
    return message_from_bytes(content, policy=policy.default)


def test_everything_is_in_it() -> None:
    written = compose(
        mail(
            subject="Grüße 🎉",
            sender_name="Der Läden, GmbH",
            html="<p>Hi!</p>",
            reply_to="help@example.org",
            unsubscribe_url="https://chat.example.org/u/token",
            headers={"X-Order": "42"},
            attachments=[Attachment("rechnung ä.pdf", "application/pdf", b"%PDF\x00")],
        )
    )
    assert b"\n" not in written.replace(b"\r\n", b"")
    found = read(written)
    assert found["Subject"] == "Grüße 🎉"
    assert found["From"].addresses[0].display_name == "Der Läden, GmbH"
    assert (found["To"], found["Reply-To"]) == ("bob@example.net", "help@example.org")
    assert (found["X-Order"], found["Message-ID"]) == ("42", "<1@example.org>")
    assert found["List-Unsubscribe"] == "<https://chat.example.org/u/token>"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert found["Date"].datetime == AT
    plain, rich = found.get_body(("plain",)), found.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert (plain.get_content(), rich.get_content()) == ("Hi!\r\n", "<p>Hi!</p>\r\n")
    [attached] = found.iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == ("rechnung ä.pdf", b"%PDF\x00")


@pytest.mark.parametrize(
    "members",
    [
        {"subject": "Hi\r\nBcc: eve@example.org"},
        {"subject": "Hi\nBcc: eve@example.org"},
        {"subject": "Hi\u2028Bcc: x"},
        {"sender_name": "A\r\nBcc: eve@example.org"},
        {"recipient": "bob@example.net\r\nRCPT TO:<eve@example.org>"},
        {"recipient": "bob@example.net, eve@example.org"},
        {"recipient": "bob"},
        {"recipient": "bøb@example.net"},
        {"reply_to": "x@y\n"},
        {"message_id": "<1>\r\nX: y"},
        {"headers": {"X-A": "b\r\nBcc: eve@example.org"}},
        {"headers": {"Bcc": "eve@example.org"}},
        {"headers": {"bcc": "eve@example.org"}},
        {"headers": {"X A": "b"}},
        {"headers": {"X-A:": "b"}},
        {"attachments": [Attachment('a"\r\nX: y', "text/plain", b"")]},
        {"text": None},
    ],
)
def test_what_would_be_another_mail_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(MailInvalidError):
        compose(mail(**members))


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=200))
def test_no_text_adds_a_header_or_a_recipient(subject: str, name: str, text: str) -> None:
    try:
        written = compose(mail(subject=subject, sender_name=name, text=text))
    except MailInvalidError:
        return
    found = read(written)
    assert sorted(found.keys()) == sorted(
        {*("From", "To", "Subject", "Date", "Message-ID", "MIME-Version"), *found.keys()}
        - {"Bcc", "Cc"}
    )
    assert [each.addr_spec for each in found["To"].addresses] == ["bob@example.net"]
    assert [each.addr_spec for each in found["From"].addresses] == ["shop@example.org"]


NAMES = st.one_of(st.text(max_size=80), st.text(" abc.,<>@=?\"\\'()é", max_size=120))


@settings(max_examples=50)
@given(NAMES, NAMES, st.text(max_size=300), st.one_of(st.none(), st.text(max_size=300)))
def test_it_says_the_same_as_the_library_would(
    subject: str, name: str, text: str, html: str | None
) -> None:
    """With an attachment the library writes all of it; without one we do."""
    given = mail(subject=subject, recipient_name=name, text=text, html=html)
    try:
        theirs = read(compose(replace(given, attachments=[Attachment("a", "a/b", b"")])))
    except MailInvalidError:
        with pytest.raises(MailInvalidError):
            compose(given)
        return
    written = compose(given)
    assert max(map(len, written.split(b"\r\n"))) <= 998
    assert b"\n" not in written.replace(b"\r\n", b"")
    ours = read(written)
    assert not ours.defects
    for field in ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version"):
        assert (ours[field], ours.get_all(field, [])[1:]) == (theirs[field], [])
    for kind in ("plain", "html"):
        part, other = ours.get_body((kind,)), theirs.get_body((kind,))
        assert (part is None) is (other is None)
        if part is not None and other is not None:
            assert part.get_content() == other.get_content()


def test_an_address_is_compared_by_its_domain_in_ascii() -> None:
    assert check_address("Bob@BÜCHER.example") == "Bob@xn--bcher-kva.example"
