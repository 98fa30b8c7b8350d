"""The pages are whole without the internet, and allowed just what they need."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from chatserver.transport.documents.asyncapi import asyncapi
from chatserver.transport.documents.asyncapi_page import asyncapi_page
from chatserver.transport.documents.markup import Html, inline, join, paragraphs, tag
from tests.support.rest import example_registry


class Seen(HTMLParser):
    """Ids and links of a page; refuses what isn't closed."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.open.append(tag)
        if (name := named.get("id")) is not None:
            self.ids.append(name)
        if (link := named.get("href")) is not None:
            self.links.add(link)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def seen() -> Seen:
    found = Seen()
    found.feed(asyncapi_page(asyncapi(example_registry())))
    assert found.open == []
    return found


def test_every_link_inside_the_page_leads_somewhere(seen: Seen) -> None:
    inside = {link.removeprefix("#") for link in seen.links if link.startswith("#")}
    assert len(inside) > 10
    assert inside <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))


def test_every_command_and_fact_stands_in_its_namespace(seen: Seen) -> None:
    assert {"boxes-box.make", "boxes-box.made", "shelves-box.made"} <= set(seen.ids)
    assert "shelves-box.make" not in seen.ids


def test_nothing_on_it_comes_from_elsewhere(seen: Seen) -> None:
    assert not {link for link in seen.links if re.match(r"(\w+:)?//", link)}


def test_text_is_escaped_once() -> None:
    assert join("<a>", Html("<b>")) == "&lt;a&gt;<b>"
    assert tag("p", "a & b", class_='x"') == '<p class="x&quot;">a &amp; b</p>'
    assert inline("`<x>` is **new**") == "<code>&lt;x&gt;</code> is <strong>new</strong>"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\nline\n\nanother", "<p>one line</p><p>another</p>"),
        ("* one\n  more\n* two", "<ul><li>one more</li><li>two</li></ul>"),
        ("", ""),
    ],
)
def test_paragraphs_and_lists(text: str, html: Any) -> None:
    assert paragraphs(text) == html
