"""Text out of PDFs, page by page."""

import io
import re
from collections.abc import Iterator
from typing import Final

import pypdf
import pypdf.errors
import pypdfium2

from chatserver.assistant.reading.shapes import MOST_PAGES, Collected, Refused, Text

# A page with less is a picture, or blank.
READABLE: Final = 20
MEDIA_TYPE: Final = "application/pdf"
# A word that is broken at the end of a line, as pdfium marks it.
_BROKEN: Final = re.compile("[\x02\ufffe]\r?\n?")
_PASSWORD: Final = 4  # pdfium's FPDF_ERR_PASSWORD


def read(data: bytes) -> Text:
    """Read a PDF.

    Raises:
        Refused: `encrypted`, `needs_ocr`, `too_large`, `empty` or `unsupported`.
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD or "assword" in str(error):
            raise Refused("encrypted") from error
        return _slowly(data)
    try:
        return _text(len(document), _pages(document), _title(document))
    except pypdfium2.PdfiumError:
        return _slowly(data)
    finally:
        document.close()


def _pages(document: pypdfium2.PdfDocument) -> Iterator[str]:
    for number in range(len(document)):
        try:
            page = document[number]
        except pypdfium2.PdfiumError:
            yield ""  # one broken page is no reason to give up the others
            continue
        text = page.get_textpage()
        yield text.get_text_range()
        text.close()
        page.close()


def _title(document: pypdfium2.PdfDocument) -> str:
    return str(document.get_metadata_dict(skip_empty=True).get("Title", ""))


def _slowly(data: bytes) -> Text:
    """Read what pdfium can't, with a reader in Python that forgives more."""
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("encrypted")
        title = (reader.metadata.title if reader.metadata else None) or ""
        return _text(len(reader.pages), (page.extract_text() for page in reader.pages), title)
    except (pypdf.errors.PyPdfError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused("unsupported") from error


def _text(count: int, pages: Iterator[str], title: str) -> Text:
    if count == 0:
        raise Refused("empty")
    if count > MOST_PAGES:
        raise Refused("too_large")
    found = Collected()
    unreadable = 0
    for page in pages:
        text = _BROKEN.sub("", page).replace("\r\n", "\n").replace("\r", "\n").strip()
        if len("".join(text.split())) < READABLE:
            unreadable += 1
        found.add(text, is_page=True)
    # One short page is a document, too; a book of pictures with a few captions is none.
    if unreadable * 2 > count and not (count == 1 and found.text().strip()):
        raise Refused("needs_ocr")
    return Text(found.text(), MEDIA_TYPE, title=title.strip(), pages=tuple(found.pages))
