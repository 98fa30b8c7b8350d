"""What files are taken, and what their content must look like. Pure decisions."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from chatserver.infra.storage import PREFIX

# What can't be told from its content may only come, and only goes out, as this.
OPAQUE: Final = "application/octet-stream"
# So much of the beginning decides about the type.
HEAD: Final = 4096
IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def key_of(client_id: UUID, file_id: UUID, noun: str = "files") -> str:
    """Name an object: `files` is checked content, `incoming` isn't, `thumbnails` are ours."""
    return f"{PREFIX}{client_id}/{noun}/{file_id}"


def _starts(*signatures: bytes, at: int = 0) -> Callable[[bytes], bool]:
    return lambda head: head[at:].startswith(signatures)


def _riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(b"RIFF") and head[8:12] == kind


def _iso(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[4:8] == b"ftyp" and (not brands or head[8:12] in brands)


def _is_text(head: bytes) -> bool:
    # Cut in the middle of a character, perhaps: the last three bytes may be incomplete.
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD:
            return False
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)  # noqa: PLR2004


_ZIP: Final = _starts(b"PK\x03\x04", b"PK\x05\x06")
_OLE: Final = _starts(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_OPEN: Final = "application/vnd.oasis.opendocument."
# Markup that a browser would run (HTML, SVG) is not in it: it may come as `OPAQUE`.
TYPES: Final[dict[str, Callable[[bytes], bool]]] = {
    "image/png": _starts(b"\x89PNG\r\n\x1a\n"),
    "image/jpeg": _starts(b"\xff\xd8\xff"),
    "image/gif": _starts(b"GIF87a", b"GIF89a"),
    "image/webp": _riff(b"WEBP"),
    "image/avif": _iso(b"avif", b"avis"),
    "image/heic": _iso(b"heic", b"heix", b"mif1", b"msf1", b"hevc"),
    "audio/mpeg": _starts(b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"),
    "audio/mp4": _iso(),
    "audio/aac": _starts(b"\xff\xf1", b"\xff\xf9"),
    "audio/ogg": _starts(b"OggS"),
    "audio/wav": _riff(b"WAVE"),
    "audio/flac": _starts(b"fLaC"),
    "audio/webm": _starts(b"\x1a\x45\xdf\xa3"),
    "video/mp4": _iso(),
    "video/quicktime": _iso(),
    "video/webm": _starts(b"\x1a\x45\xdf\xa3"),
    "application/pdf": _starts(b"%PDF-"),
    "application/zip": _ZIP,
    "application/gzip": _starts(b"\x1f\x8b"),
    "application/x-7z-compressed": _starts(b"7z\xbc\xaf\x27\x1c"),
    f"{_OFFICE}wordprocessingml.document": _ZIP,
    f"{_OFFICE}spreadsheetml.sheet": _ZIP,
    f"{_OFFICE}presentationml.presentation": _ZIP,
    f"{_OPEN}text": _ZIP,
    f"{_OPEN}spreadsheet": _ZIP,
    f"{_OPEN}presentation": _ZIP,
    "application/epub+zip": _ZIP,
    "application/msword": _OLE,
    "application/vnd.ms-excel": _OLE,
    "application/vnd.ms-powerpoint": _OLE,
    "application/json": _is_text,
    "text/plain": _is_text,
    "text/csv": _is_text,
    "text/markdown": _is_text,
    OPAQUE: lambda _: True,
}


def fits(content_type: str, head: bytes) -> bool:
    """Tell whether a content begins like one of this type; an empty one is of any."""
    return not head or TYPES[content_type](head)
