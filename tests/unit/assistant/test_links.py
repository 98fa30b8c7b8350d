"""No address of a model's making reaches a reader, wherever the stream is cut."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.assistant.answering.links import LONGEST, REMOVED, Links

ADDRESSES = (
    "https://evil.example/?q=secret",
    "![x](https://evil.example/a.png)",
    "![x](//evil.example/a.png)",
    "[text](http://evil.example/b/c)",
    "[text](<http://evil.example/b c>)",
    "[1](evil.example)",
    "<img src=https://evil.example/a>",
    "<https://evil.example>",
    "www.evil.example",
    "evil-example.com/?q=secret",
    "[ref]: https://evil.example/x",
    "ftp://evil.example/x",
    "HTTPS://EVIL.EXAMPLE/x",
)
HARMLESS = (
    "Plain words only. And more, and/or not.",
    "a < b and c > d",
    "[1](see below) is fine",
    "Node.js/Express works at 10:30",
    "http is a protocol: it is old",
    "e.g. this. U.S. people // and comments",
    "Is it so? Yes! [1] It is.",
)


def cleaned(text: str, *cuts: int) -> str:
    links = Links()
    shown, at = "", 0
    for cut in (*sorted(cuts), len(text)):
        shown += links.feed(text[at:cut])
        at = max(at, cut)
    return shown + links.flush()


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_taken_out_wherever_the_stream_is_cut(address: str) -> None:
    text = f"Look here: {address} now"
    for cut in range(len(text) + 1):
        shown = cleaned(text, cut)
        assert "//" not in shown, cut
        assert not re.search(r"\]\(\S+\)|www\.|<img|\.com/", shown), (cut, shown)
        assert shown.startswith("Look here:")
        assert shown.endswith("now")
    assert "//" not in cleaned(text, *range(len(text)))


@pytest.mark.parametrize("text", HARMLESS)
def test_plain_text_passes_as_it_is(text: str) -> None:
    assert {cleaned(text, cut) for cut in range(len(text) + 1)} == {text}


@given(st.text(alphabet="htps:/w.comevil[]()<>! \n", max_size=60), st.data())
def test_no_scheme_ever_leaves(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    shown = cleaned(text, *cuts).replace(REMOVED, "")
    assert "://" not in shown
    assert not re.search(r"\]\((?=\S)[^\s()]+\)", shown)


def test_an_endless_address_is_thrown_away_and_costs_little() -> None:
    links = Links()
    started = time.monotonic()
    shown = links.feed("see https://evil.example/")
    for _ in range(2000):
        shown += links.feed("abcdefghij")
    shown += links.feed(" and on") + links.flush()
    assert time.monotonic() - started < 2
    assert shown == f"see {REMOVED} and on"
    assert len(links._held) <= LONGEST
