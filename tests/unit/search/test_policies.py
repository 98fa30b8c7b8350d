from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.search.policies import MOST_TERMS, Lexemes, Term, terms_of

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("q", "terms"),
    [
        ("red fox", [Term("word", "red", False), Term("word", "fox", False)]),
        ('"red fox" jump*', [Term("phrase", "red fox", False), Term("prefix", "jump", False)]),
        ('a -b -"c d"', [Term("word", "a", False), Term("word", "b", True),
                         Term("phrase", "c d", True)]),
        ('"open', [Term("phrase", "open", False)]),
        ("größ*", [Term("prefix", "größ", False)]),
        ("a* b*c", None),
        ("", None),
        ("-a", None),
        ('""', None),
    ],
    ids=range(9),
)  # fmt: skip
def test_reads_queries(q: str, terms: list[Term] | None) -> None:
    if terms is None:
        with pytest.raises(PayloadInvalidError):
            terms_of(q)
    else:
        assert terms_of(q) == terms


@given(st.text(max_size=256))
def test_whatever_is_typed_is_read_or_refused(q: str) -> None:
    with suppress(PayloadInvalidError):
        terms = terms_of(q)
        assert 0 < len(terms) <= MOST_TERMS
        assert any(not term.is_not for term in terms)
        assert all(term.text for term in terms)


def _day(lexeme: str) -> int:
    return int(lexeme[10:], 16)


@given(st.integers(0, 4000))
def test_windows_cover_every_day_once_up_to_22_years_back(days: int) -> None:
    newest = NOON + timedelta(days=days)
    seen: list[int] = []
    for window in Lexemes(uuid7()).windows(newest, None):
        for lexeme in window:
            if lexeme[1] == "d":
                seen.append(_day(lexeme))
            else:
                seen += range(_day(lexeme) * 32, _day(lexeme) * 32 + 32)
    today = int(newest.timestamp() // 86_400)
    assert sorted(seen) == list(range(min(seen), today + 1))
    assert today - min(seen) > 22 * 360


def test_windows_end_at_the_oldest_day_that_is_asked_for() -> None:
    lexemes = Lexemes(uuid7())
    assert len(list(lexemes.windows(NOON, NOON))) == 1
    assert len(list(lexemes.windows(NOON, NOON - timedelta(days=10)))) < 6
