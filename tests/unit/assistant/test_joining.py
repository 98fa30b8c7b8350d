"""What is written after a break is joined so that every character shows once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.assistant.answering.joining import (
    Joint,
    NotJoinedError,
    RestartedError,
    has_restarted,
    overlap_of,
)
from chatserver.assistant.answering.prompts import cut_back

TEXT = (
    "The harbour opens at six in the morning [1]. Boats longer than nine metres need a permit [1]."
    " Permits are issued by the harbour master on weekdays."
)


def joined(shown: str, seen: str, new: str, step: int = 7) -> str:
    joint = Joint(shown, seen)
    rest = "".join(joint.feed(new[at : at + step]) for at in range(0, len(new), step))
    return shown + rest + joint.flush()


@pytest.mark.parametrize("at", range(5, len(TEXT), 11))
def test_a_model_that_goes_on_from_the_last_whole_word(at: int) -> None:
    shown = TEXT[:at]
    seen = cut_back(shown)
    assert joined(shown, seen, TEXT[len(seen) :]) == TEXT


@pytest.mark.parametrize("back", [8, 12, 40, 100])
def test_a_model_that_repeats_what_it_said(back: int) -> None:
    shown = TEXT[:120]
    assert joined(shown, shown, TEXT[120 - back :]) == TEXT


def test_case_and_white_space_don_t_matter_in_what_is_repeated() -> None:
    shown = "It opens at six in the Morning"
    new = "at  six in\nthe morning and closes at nine."
    assert joined(shown, shown, new) == shown + " and closes at nine."


def test_one_that_begins_again_word_by_word_is_joined_where_it_stood() -> None:
    assert joined(TEXT[:120], cut_back(TEXT[:120]), TEXT) == TEXT


def test_one_that_begins_again_in_other_words_is_told() -> None:
    shown = TEXT[:120]
    with pytest.raises(RestartedError) as told:
        joined(shown, cut_back(shown), TEXT.replace("harbour", "harbor").replace("six", "6"))
    assert told.value.text.startswith("The harbor opens at 6")


def test_one_that_says_something_else_in_the_middle_of_a_word_is_told() -> None:
    with pytest.raises(NotJoinedError):
        joined("The harbour mas", "The harbour", "Completely different words follow here.")


def test_something_else_entirely_is_no_restart() -> None:
    assert not has_restarted(TEXT, "Dogs must be kept on a lead, and swimming is forbidden here.")


@given(st.text(max_size=80), st.integers(0, 40), st.text(max_size=40))
def test_an_overlap_is_never_more_than_what_is_the_same(shown: str, back: int, rest: str) -> None:
    tail = shown[len(shown) - min(back, len(shown)) :]
    size = overlap_of(shown, tail + rest)
    folded = "".join((tail + rest)[:size].casefold().split())
    assert "".join(shown.casefold().split()).endswith(folded)


@given(st.text(max_size=60))
def test_what_the_model_sees_is_a_beginning_without_an_open_bracket(shown: str) -> None:
    seen = cut_back(shown)
    assert shown.startswith(seen)
    last = seen.rfind("[")
    assert last < 0 or any(char in seen[last:] for char in "]】\uff3d\n")
