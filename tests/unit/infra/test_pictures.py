import io
import struct
import zlib

import pytest
from PIL import Image

from chatserver.infra.pictures import MOST_PIXELS, PictureError, measure, thumbnail
from tests.support.files import picture


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it is this large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    pixels = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_has_a_size_and_a_small_copy(kind: str) -> None:
    content = picture(1000, 500, kind)
    content_type = f"image/{kind.lower()}"
    assert measure(content, content_type) == (1000, 500)
    with Image.open(io.BytesIO(thumbnail(content, content_type))) as small:
        assert (small.format, small.size) == ("WEBP", (400, 200))


def test_a_photo_is_upright_and_its_copy_says_nothing_of_where_it_was_taken() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "c4n4ry"
    content = picture(800, 400, "JPEG", exif=exif)
    assert b"c4n4ry" in content
    assert measure(content, "image/jpeg") == (400, 800)
    small = thumbnail(content, "image/jpeg")
    assert b"c4n4ry" not in small
    with Image.open(io.BytesIO(small)) as shown:
        assert shown.size == (200, 400)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        picture()[:100],
        picture(kind="JPEG"),
        bomb(100_000, 100_000),
        bomb(MOST_PIXELS, 2),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
    ids=range(7),
)
def test_what_is_no_picture_of_its_type_or_too_large_is_refused(content: bytes) -> None:
    with pytest.raises(PictureError):
        thumbnail(content, "image/png")


def test_a_bomb_is_refused_by_what_it_says_before_it_is_opened() -> None:
    with pytest.raises(PictureError, match=r"pixels|Bomb"):
        measure(bomb(20_000, 20_000), "image/png")
    with pytest.raises(PictureError, match="pixels"):
        measure(bomb(10_000, 6_000), "image/png")
