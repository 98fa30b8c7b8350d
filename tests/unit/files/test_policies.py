import pytest

from chatserver.files.policies import HEAD, TYPES, fits, key_of
from chatserver.infra.storage import check_key
from chatserver.kernel.ids import uuid7
from tests.support.files import picture


@pytest.mark.parametrize(
    ("content_type", "head", "is_right"),
    [
        ("image/png", picture()[:HEAD], True),
        ("image/jpeg", picture(kind="JPEG")[:HEAD], True),
        ("image/webp", picture(kind="WEBP")[:HEAD], True),
        ("image/gif", picture(kind="GIF")[:HEAD], True),
        ("image/png", picture(kind="JPEG")[:HEAD], False),
        ("image/png", b"<svg onload=alert(1)>", False),
        ("application/pdf", b"%PDF-1.7", True),
        ("application/pdf", b" %PDF-1.7", False),
        ("text/plain", "größer".encode(), True),
        ("text/plain", b"a\x00b", False),
        ("text/plain", b"\xff\xfeh\x00", False),
        ("text/plain", b"a\x1b[2J", False),
        ("text/plain", b"x" * (HEAD - 1) + "ü".encode()[:1], True),
        ("text/plain", b"x" + "ü".encode()[:1], False),
        ("text/csv", b"a,b\r\n", True),
        ("application/zip", b"MZ", False),
        ("video/mp4", b"\0\0\0\x18ftypmp42", True),
        ("image/avif", b"\0\0\0\x18ftypmp42", False),
        ("application/octet-stream", b"MZ", True),
    ],
    ids=range(19),
)
def test_a_content_begins_like_its_type(content_type: str, head: bytes, is_right: bool) -> None:
    assert fits(content_type, head) is is_right


def test_no_type_that_a_browser_would_run_is_known() -> None:
    assert not {"text/html", "image/svg+xml", "application/xhtml+xml", "text/xml"} & set(TYPES)
    assert not [name for name in TYPES if "script" in name]


def test_keys_can_mean_nothing_else() -> None:
    for noun in ("files", "incoming", "thumbnails"):
        check_key(key_of(uuid7(), uuid7(), noun))
