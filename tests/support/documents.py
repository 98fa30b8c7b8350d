"""Documents of every kind, made for tests, and a stand-in for the model that embeds them."""

import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import docx
import numpy as np
import openpyxl
import pptx

from chatserver.assistant.embedding.schemas import Vectors
from chatserver.assistant.reading.confinement import Bounds
from chatserver.assistant.reading.process import ReadDocument, read_document
from chatserver.kernel.wire import UploadedFile


def word(title: str, heading: str, paragraph: str, rows: Sequence[Sequence[str]] = ()) -> bytes:
    document = docx.Document()
    document.core_properties.title = title
    document.add_heading(heading, 1)
    document.add_paragraph(paragraph)
    if rows:
        table = document.add_table(len(rows), len(rows[0]))
        for line, values in zip(table.rows, rows, strict=True):
            for cell, value in zip(line.cells, values, strict=True):
                cell.text = value
    return _saved(document)


def slides(*pages: tuple[str, str]) -> bytes:
    show = pptx.Presentation()
    for heading, body in pages:
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = heading
        slide.placeholders[1].text = body
    return _saved(show)


def sheet(name: str, rows: Sequence[Sequence[Any]]) -> bytes:
    book = openpyxl.Workbook()
    book.active.title = name
    for row in rows:
        book.active.append(row)
    return _saved(book)


def book(title: str, *chapters: tuple[str, str]) -> bytes:
    """An EPUB whose spine runs against the order of its files."""
    packed = io.BytesIO()
    ids = [f"c{number}" for number in range(len(chapters))]
    items = "".join(f'<item id="{each}" href="{each}.xhtml"/>' for each in reversed(ids))
    spine = "".join(f'<itemref idref="{each}"/>' for each in ids)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container><rootfiles><rootfile full-path="OPS/b.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "OPS/b.opf",
            f'<package xmlns:dc="d"><metadata><dc:title>{title}</dc:title></metadata>'
            f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
        )
        for each, (heading, body) in zip(ids, chapters, strict=True):
            archive.writestr(
                f"OPS/{each}.xhtml", f"<html><body><h1>{heading}</h1><p>{body}</p></body></html>"
            )
    return packed.getvalue()


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page; an empty one is a picture of nothing."""
    objects: dict[int, str] = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    }
    kids = []
    for number, text in enumerate(pages):
        page = 4 + 2 * number
        stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET" if text else ""
        objects[page] = (
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {page + 1} 0 R >>"
        )
        objects[page + 1] = f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"
        kids.append(f"{page} 0 R")
    objects[2] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    written = b"%PDF-1.4\n"
    places = {}
    for number in sorted(objects):
        places[number] = len(written)
        written += f"{number} 0 obj\n{objects[number]}\nendobj\n".encode()
    table = b"".join(f"{places[number]:010d} 00000 n \n".encode() for number in sorted(objects))
    size = len(objects) + 1
    return (
        written
        + f"xref\n0 {size}\n0000000000 65535 f \n".encode()
        + table
        + f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(written)}\n%%EOF".encode()
    )


def bomb(entry: str, size: int) -> bytes:
    """An archive that is small, and whose entry is not."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, bytes(size))
    return packed.getvalue()


def _saved(document: Any) -> bytes:
    packed = io.BytesIO()
    document.save(packed)
    return packed.getvalue()


async def read(
    content: bytes, name: str, *, title: str | None = None, bounds: Bounds | None = None
) -> ReadDocument:
    """Read a document as the worker does, in a process of its own."""

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    return await read_document(pieces(), name=name, title=title, bounds=bounds)


def file_of(directory: Path, name: str, content: bytes) -> UploadedFile:
    """A file of a form, as the door hands it over."""
    sha256 = hashlib.sha256(content).digest()
    path = directory / sha256.hex()
    path.write_bytes(content)
    return UploadedFile(name, len(content), sha256, path)


class WordVectors:
    """Embeds texts by their words: alike where words are, and the same on every run.

    It counts what it embeds, stops when told to, and is as fast as nothing.
    """

    name = "words"
    dimension = 64

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.fails_after: int | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self.fails_after is not None and len(self.texts) >= self.fails_after:
            raise WorkerKilled
        self.texts += texts
        return np.array([self._vector(text) for text in texts], np.float32)

    async def close(self) -> None:
        """Nothing is open."""

    def _vector(self, text: str) -> Any:
        vector = np.full(self.dimension, 1e-3)
        for word_ in text.lower().split():
            place = int.from_bytes(hashlib.sha256(word_.strip(".,?!").encode()).digest()[:4])
            vector[place % self.dimension] += 1
        return vector / np.linalg.norm(vector)


class WorkerKilled(BaseException):
    """Ends a job as kill -9 does: nothing of it is recorded."""
