"""Pictures from strangers: their size, and small copies of them. Blocking: call it in a thread."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL import Image

# A photo of a good camera has 50 million pixels, which is 200 MB while it is made small.
MOST_PIXELS: Final = 50_000_000
THUMBNAIL: Final = (400, 400)
THUMBNAIL_TYPE: Final = "image/webp"
_FORMATS: Final = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
}


class PictureError(Exception):
    """It is no picture of its type, it is broken, or it would be too large in memory."""


def measure(content: bytes, content_type: str) -> tuple[int, int]:
    """Give width and height as the picture is shown; only its head is decoded.

    Raises:
        PictureError: see there.
    """
    with _careful(content, content_type) as picture:
        return _turned(picture)


def thumbnail(content: bytes, content_type: str) -> bytes:
    """Make a WebP of at most 400 x 400 pixels, upright, of the first frame, without metadata.

    Raises:
        PictureError: see there.
    """
    from PIL import ImageOps  # noqa: PLC0415 - most processes never see a picture

    with _careful(content, content_type) as picture:
        # A JPEG decodes to an eighth of its size right away.
        picture.draft("RGB", (THUMBNAIL[0] * 2, THUMBNAIL[1] * 2))
        upright = ImageOps.exif_transpose(picture)
        upright.thumbnail(THUMBNAIL)
        has_alpha = upright.has_transparency_data
        small = io.BytesIO()
        upright.convert("RGBA" if has_alpha else "RGB").save(small, "WEBP", quality=80)
        return small.getvalue()


@contextmanager
def _careful(content: bytes, content_type: str) -> "Iterator[Image.Image]":
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - most never see a picture

    try:
        with warnings.catch_warnings():
            # We judge the size ourselves, below, before anything is decoded.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[_FORMATS[content_type]]) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise PictureError("too many pixels")
                yield picture
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        # Whatever a broken file makes a decoder stumble over.
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        ArithmeticError,
        MemoryError,
        EOFError,
    ) as error:
        raise PictureError(type(error).__name__) from error


def _turned(picture: "Image.Image") -> tuple[int, int]:
    orientation = picture.getexif().get(0x0112, 1)
    # 5 to 8: the camera was held upright.
    if orientation in {5, 6, 7, 8}:
        return picture.height, picture.width
    return picture.width, picture.height
