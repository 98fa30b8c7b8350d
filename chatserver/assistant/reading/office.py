"""Text out of Word, PowerPoint and Excel documents, as Markdown."""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, Final

import docx
import openpyxl
import pptx
from docx.table import Table
from docx.text.paragraph import Paragraph
from lxml.etree import LxmlError

from chatserver.assistant.reading.shapes import Collected, Refused, Text, cell, row, table

MOST_CELLS: Final = 1_000_000
_BASE: Final = "application/vnd.openxmlformats-officedocument."
WORD: Final = _BASE + "wordprocessingml.document"
SLIDES: Final = _BASE + "presentationml.presentation"
SHEETS: Final = _BASE + "spreadsheetml.sheet"
_LEVEL: Final = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop) ?([1-6])", re.IGNORECASE
)
# What these libraries raise for files that are not what they say.
_BROKEN: Final = (
    KeyError, ValueError, TypeError, AttributeError, IndexError, LookupError, zipfile.BadZipFile,
    LxmlError, OSError, EOFError,
)  # fmt: skip


def read_word(data: bytes) -> Text:
    try:
        document = docx.Document(io.BytesIO(data))
        found = Collected()
        for block in document.iter_inner_content():
            found.add(_paragraph(block) if isinstance(block, Paragraph) else _table(block))
        title = document.core_properties.title or ""
    except _BROKEN as error:
        raise Refused("unsupported") from error
    return Text(found.text(), WORD, title=title.strip(), is_marked=True)


def _paragraph(paragraph: Paragraph) -> str:
    text = paragraph.text.strip()
    style = (paragraph.style.name or "") if paragraph.style is not None else ""
    level = _LEVEL.match(style)
    if text and level:
        return f"{'#' * int(level[1])} {text}"
    if text and style == "Title":
        return f"# {text}"
    return f"- {text}" if text and style.startswith("List") else text


def _table(found: Table) -> str:
    return table([[cell(each.text) for each in line.cells] for line in found.rows])


def read_slides(data: bytes) -> Text:
    try:
        show = pptx.Presentation(io.BytesIO(data))
        found = Collected()
        for slide in show.slides:
            found.add("\n\n".join(_slide(slide)), is_page=True)
        title = show.core_properties.title or ""
    except _BROKEN as error:
        raise Refused("unsupported") from error
    title = "" if title == "PowerPoint Presentation" else title.strip()
    return Text(found.text(), SLIDES, title=title, pages=tuple(found.pages), is_marked=True)


def _slide(slide: Any) -> Iterator[str]:  # noqa: ANN401 - the library has no types for it
    heading = slide.shapes.title
    if heading is not None and heading.text.strip():
        yield f"# {' '.join(heading.text.split())}"
    yield from _shapes(
        each for each in slide.shapes if heading is None or each.shape_id != heading.shape_id
    )
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield slide.notes_slide.notes_text_frame.text.strip()


def _shapes(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if getattr(shape, "shapes", None) is not None:
            yield from _shapes(shape.shapes)
        elif getattr(shape, "has_table", False):
            yield table([[cell(each.text) for each in line.cells] for line in shape.table.rows])
        elif getattr(shape, "has_text_frame", False) and shape.text_frame.text.strip():
            yield shape.text_frame.text.strip()


def read_sheets(data: bytes) -> Text:
    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        found = Collected()
        cells = 0
        for sheet in book.worksheets:
            is_first = True
            for values in sheet.iter_rows(values_only=True):
                cells += len(values)
                if cells > MOST_CELLS:
                    raise Refused("too_large")
                written = [cell(value) for value in values]
                while written and not written[-1]:
                    written.pop()
                if not written:
                    continue
                if is_first:
                    rule = row(["---"] * len(written))
                    found.add(f"# {sheet.title}\n\n{row(written)}\n{rule}")
                    is_first = False
                else:
                    found.line(row(written))
        title = book.properties.title or ""
    except _BROKEN as error:
        raise Refused("unsupported") from error
    return Text(found.text(), SHEETS, title=title.strip(), is_marked=True)
