"""Tells what a document is by its content; its name only tells texts apart."""

import io
import re
import zipfile
from pathlib import PurePosixPath
from typing import Final

from chatserver.assistant.reading.shapes import Refused

MOST_ENTRIES: Final = 1_000
MOST_RATIO: Final = 100
# A small archive may be packed better than that.
LARGEST_UNPACKED: Final = 300 * 2**20
FREE_UNPACKED: Final = 10 * 2**20
_HEAD: Final = 1024

_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BINARY: Final = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh",
    b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe",
    b"SQLite format 3", b"\0asm", b"ID3", b"OggS", b"fLaC", b"II*\0", b"MM\0*", b"8BPS", b"wOFF",
    b"wOF2", b"{\\rtf", b"%!PS", b"\x00\x00\x00\x0cjP  ", b"BM", b"Obj\x01", b"PAR1",
)  # fmt: skip
# By the ending of a file's name: the package with the grammar, its function, the media type.
CODE: Final = {
    ".py": ("tree_sitter_python", "language", "text/x-python"),
    ".js": ("tree_sitter_javascript", "language", "text/javascript"),
    ".mjs": ("tree_sitter_javascript", "language", "text/javascript"),
    ".cjs": ("tree_sitter_javascript", "language", "text/javascript"),
    ".jsx": ("tree_sitter_javascript", "language", "text/javascript"),
    ".ts": ("tree_sitter_typescript", "language_typescript", "text/x-typescript"),
    ".tsx": ("tree_sitter_typescript", "language_tsx", "text/x-typescript"),
    ".java": ("tree_sitter_java", "language", "text/x-java"),
    ".go": ("tree_sitter_go", "language", "text/x-go"),
    ".rs": ("tree_sitter_rust", "language", "text/x-rust"),
    ".c": ("tree_sitter_c", "language", "text/x-c"),
    ".h": ("tree_sitter_cpp", "language", "text/x-c"),
    ".cc": ("tree_sitter_cpp", "language", "text/x-c++"),
    ".cpp": ("tree_sitter_cpp", "language", "text/x-c++"),
    ".hpp": ("tree_sitter_cpp", "language", "text/x-c++"),
    ".cs": ("tree_sitter_c_sharp", "language", "text/x-csharp"),
    ".rb": ("tree_sitter_ruby", "language", "text/x-ruby"),
    ".php": ("tree_sitter_php", "language_php", "text/x-php"),
    ".sh": ("tree_sitter_bash", "language", "text/x-shellscript"),
}
_HTML: Final = re.compile(rb"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
_MARKDOWN: Final = frozenset({".md", ".markdown", ".mdx", ".rst"})
_TABLES: Final = {".csv": "text/csv", ".tsv": "text/tab-separated-values"}
_WEB: Final = frozenset({".html", ".htm", ".xhtml"})


def kind_of(data: bytes, name: str) -> str:
    """Give `pdf`, `docx`, `pptx`, `xlsx`, `epub`, `html`, `markdown`, `csv`, `tsv` or `text`.

    Raises:
        Refused: `empty`, `encrypted`, `too_large` or `unsupported`.
    """
    if not data.strip(b"\0 \t\r\n\f"):
        raise Refused("empty")
    head = data[:_HEAD]
    if b"%PDF-" in head:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _archive(data)
    if head.startswith(_OLE):
        # A document with a password is packed into the older container.
        is_locked = "EncryptedPackage".encode("utf-16-le") in data
        raise Refused("encrypted" if is_locked else "unsupported")
    if head.startswith(_BINARY) and not _is_word(head):
        raise Refused("unsupported")
    if head[4:8] == b"ftyp":
        raise Refused("unsupported")
    suffix = PurePosixPath(name.lower()).suffix
    if _HTML.search(data[: 4 * _HEAD]) or suffix in _WEB:
        return "html"
    if suffix in _MARKDOWN:
        return "markdown"
    return suffix[1:] if suffix in _TABLES else "text"


def code_of(kind: str, name: str) -> tuple[str, str, str] | None:
    """Tell which programming language a text is in: package, function of it, media type."""
    return CODE.get(PurePosixPath(name.lower()).suffix) if kind == "text" else None


def _is_word(head: bytes) -> bool:
    # "BMW sells …" and "MZ" are no bitmap and no program: those have control bytes soon after.
    return head[:2] in {b"BM", b"MZ"} and not any(byte < 9 for byte in head[:64])  # noqa: PLR2004


def _archive(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise Refused("unsupported") from error
    if len(entries) > MOST_ENTRIES:
        raise Refused("too_large")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > LARGEST_UNPACKED or (
        unpacked > FREE_UNPACKED and unpacked > MOST_RATIO * len(data)
    ):
        raise Refused("too_large")
    if any(entry.flag_bits & 1 for entry in entries):
        raise Refused("encrypted")
    for marker, kind in (
        ("word/document.xml", "docx"),
        ("ppt/presentation.xml", "pptx"),
        ("xl/workbook.xml", "xlsx"),
        ("META-INF/container.xml", "epub"),
    ):
        if marker in names:
            return kind
    raise Refused("unsupported")
