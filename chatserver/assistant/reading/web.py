"""Text out of web pages and EPUB books, as Markdown."""

import io
import posixpath
import re
import zipfile
from typing import Final
from urllib.parse import unquote

import trafilatura
from selectolax.lexbor import LexborHTMLParser as HTMLParser

from chatserver.assistant.reading.decoding import decode
from chatserver.assistant.reading.shapes import Collected, Refused, Text

HTML: Final = "text/html"
EPUB: Final = "application/epub+zip"
# Below that, what is thought to be the main text is surely not.
LEAST: Final = 0.1
_UNSEEN: Final = ("script", "style", "noscript", "template", "head", "svg", "iframe")
_HEADINGS: Final = ("h1", "h2", "h3", "h4", "h5", "h6")
_CHARSET: Final = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
_BREAKS: Final = re.compile(r"(?<![ \t])[ \t]*+\n[^\S\n]*+\n\s*+")


def read_page(data: bytes) -> Text:
    """Read a page's main text; all of its text where that is hardly any."""
    markup = _decode(data)
    tree = HTMLParser(markup)
    named = tree.css_first("title")
    title = " ".join(named.text().split()) if named is not None else ""
    whole = _whole(tree)
    main = trafilatura.extract(
        markup, output_format="markdown", include_tables=True, include_comments=False,
        favor_recall=True, with_metadata=False,
    )  # fmt: skip
    text = main if main and len(main) > LEAST * len(whole) else whole
    return Text(text, HTML, title=title, is_marked=True)


def _decode(data: bytes) -> str:
    declared = _CHARSET.search(data[:2048])
    if declared is not None:
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            return decode(data)
    return decode(data)


def _whole(tree: HTMLParser) -> str:
    for tag in _UNSEEN:
        for node in tree.css(tag):
            node.decompose()
    for level, tag in enumerate(_HEADINGS, start=1):
        for node in tree.css(tag):
            text = " ".join(node.text().split())
            node.replace_with(f"\n\n{'#' * level} {text}\n\n" if text else " ")
    body = tree.body
    text = body.text(separator="\n") if body is not None else ""
    return _BREAKS.sub("\n\n", text).strip()


def read_book(data: bytes) -> Text:
    """Read an EPUB: its chapters in the order of its spine."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            package = _package(archive)
            opf = HTMLParser(decode(archive.read(package)))
            found = Collected()
            for path in _spine(opf, package):
                if path in archive.NameToInfo:
                    found.add(_whole(HTMLParser(decode(archive.read(path)))))
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, ValueError) as error:
        raise Refused("unsupported") from error
    named = opf.css_first("dc\\:title")
    title = " ".join(named.text().split()) if named is not None else ""
    return Text(found.text(), EPUB, title=title, is_marked=True)


def _package(archive: zipfile.ZipFile) -> str:
    container = HTMLParser(decode(archive.read("META-INF/container.xml")))
    root = container.css_first("rootfile")
    path = root.attributes.get("full-path") if root is not None else None
    if not path:
        raise Refused("unsupported")
    return path


def _spine(opf: HTMLParser, package: str) -> list[str]:
    base = posixpath.dirname(package)
    items = {
        node.attributes.get("id"): node.attributes.get("href") or "" for node in opf.css("item")
    }
    paths = [items.get(node.attributes.get("idref"), "") for node in opf.css("itemref")]
    return [
        posixpath.normpath(posixpath.join(base, unquote(path.partition("#")[0] or "")))
        for path in paths
        if path
    ]
