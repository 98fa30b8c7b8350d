"""Marks are checked before anybody sees them, wherever the stream is cut."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.assistant.answering.citations import CitationMarks
from chatserver.assistant.answering.cleaning import Cleaner
from chatserver.assistant.answering.schemas import Source
from tests.unit.assistant.sources import source

CASES = {
    "It is so [1].": "It is so [1].",
    "[1,3] and [[4]] x": "[1][3] and [4] x",
    "\u30101\u3011 and \uff3b2\uff3d": "[1] and [2]",
    "a [9] b": "a b",
    "a [9].": "a.",
    "[sic] and [ ] stay [1]": "[sic] and [ ] stay [1]",
    "[see [2] there": "[see [2] there",
    "[1-3]": "[1][2][3]",
    "in [2024] already": "in already",
    "x [source 1] y": "x [1] y",
    "\u30101\u2020source\u3011": "[1]",
    "[[1],[2]] [[1][2]]": "[1][2] [1][2]",
    "[1 and 2] [1;2] [^1]": "[1][2] [1][2] [1]",
    "[5,7] of four": "of four",
    "[undefined] [source]": "",
    "open [": "open [",
    "a long [bracket with many words in it] [1]": "a long [bracket with many words in it] [1]",
}


@pytest.mark.parametrize("text", CASES)
def test_every_shape_of_mark_becomes_one_wherever_the_stream_is_cut(text: str) -> None:
    for cut in range(len(text) + 1):
        marks = CitationMarks({1, 2, 3, 4})
        shown = marks.feed(text[:cut]) + marks.feed(text[cut:]) + marks.flush()
        assert shown.strip() == CASES[text].strip(), cut
    marks = CitationMarks({1, 2, 3, 4})
    assert ("".join(map(marks.feed, text)) + marks.flush()).strip() == CASES[text].strip()


def test_what_was_used_and_what_was_dropped_is_known() -> None:
    marks = CitationMarks({1, 2})
    marks.feed("a [2] b [7] c [1][2]")
    marks.flush()
    assert (marks.used, marks.dropped) == ([2, 1], 1)


def test_a_bot_that_shows_no_marks_shows_none() -> None:
    marks = CitationMarks({1}, shows=False)
    assert marks.feed("It is so [1]. And so [1][9].") + marks.flush() == "It is so. And so."


@given(
    st.lists(st.sampled_from([*"[]【】 ,;1239\n.ab", "[1]", "[9]", "[[2]]"]), max_size=40),
    st.data(),
)
def test_no_number_that_was_not_given_ever_leaves_in_prose(
    parts: list[str], data: st.DataObject
) -> None:
    text = "".join(parts)
    cleaner = Cleaner([source(1), source(2)], given="")
    shown, at = "", 0
    while at < len(text):
        step = data.draw(st.integers(1, 5))
        shown += cleaner.feed(text[at : at + step])
        at += step
    shown += cleaner.flush()
    assert {int(n) for n in re.findall(r"\[(\d+)\]", shown)} <= {1, 2}


class TestCode:
    def clean(self, text: str, *, given: str = "", sources: list[Source] | None = None) -> set[str]:
        """Clean a text, cut at every place; all that came out."""
        found = set()
        for cut in range(len(text) + 1):
            cleaner = Cleaner(sources or [source(1)], given=given)
            found.add(cleaner.feed(text[:cut]) + cleaner.feed(text[cut:]) + cleaner.flush())
        return found

    def test_fenced_and_inline_code_is_left_alone(self) -> None:
        text = "See `a[9]` and\n```python\nx = y[7]  # [8]\n```\nbut [9] not [1]."
        assert self.clean(text) == {"See `a[9]` and\n```python\nx = y[7]  # [8]\n```\nbut not [1]."}

    def test_a_stray_backtick_hides_no_marks_on_the_lines_after_it(self) -> None:
        assert self.clean("It`s [9] so\nand [9] so [1].") == {"It`s [9] so\nand so [1]."}

    def test_addresses_in_code_stay_only_where_a_source_gave_them(self) -> None:
        text = "```\ncurl https://docs.example/api\ncurl https://evil.example/?q=1\n```"
        [clean] = self.clean(text, given="Use https://docs.example/api for it.")
        assert "https://docs.example/api" in clean
        assert "evil" not in clean


def test_a_continued_answer_knows_that_it_stands_inside_of_code() -> None:
    cleaner = Cleaner([source(1)], given="", shown="Like this [1]:\n```\nx[7]\n")
    assert cleaner.feed("y[8]\n```\nand [9] [1]") + cleaner.flush() == "y[8]\n```\nand [1]"
