from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.moderation.policies import MASK, Rule, compile_rule, judge

HERE = uuid4()


def rule(kind: str, *values: str, action: str = "reject", rooms: bool = False) -> Rule:
    only = frozenset({HERE}) if rooms else None
    return Rule(uuid4(), action, only, compile_rule(kind, values))


def hits(found: Rule, content: str) -> bool:
    return judge(content, None, [found]).rejected_by == found.id


class TestWords:
    @pytest.mark.parametrize(
        ("content", "hit"),
        [
            ("what a Dolt", True),
            ("dolt!", True),
            ("DOLT", True),
            ("adolt dolts dolt_", False),
            ("do\u200blt", True),
            ("\uff44\uff4f\uff4c\uff54", True),
            ("d olt", False),
            ("buy  now", False),
            ("Buy now, today", True),
            ("ein Größenwahn", False),
            ("die Größe", True),
            ("", False),
        ],
    )
    def test_whole_words_in_any_case_and_disguise(self, content: str, *, hit: bool) -> None:
        assert hits(rule("word", "dolt", "buy now", "größe"), content) is hit

    def test_what_means_something_in_a_pattern_means_itself_here(self) -> None:
        found = rule("word", "c++ (x|y)", "a.c")
        assert hits(found, "in C++ (x|y) we trust")
        assert not hits(found, "abc x y")

    def test_masks_leave_everything_else_as_it_was(self) -> None:
        verdict = judge("Ä dolt, a Dolt; dolts", None, [rule("word", "dolt", action="mask")])
        assert verdict.content == f"Ä {MASK}, a {MASK}; dolts"
        assert verdict.masked_by

    def test_what_can_not_be_masked_is_rejected(self) -> None:
        assert judge("do\u00adlt", None, [rule("word", "dolt", action="mask")]).rejected_by


class TestLinks:
    @pytest.mark.parametrize(
        ("content", "hit"),
        [
            ("see https://evil.example/x", True),
            ("see sub.EVIL.example now", True),
            ("https://evil.example.org", False),
            ("notevil.example", False),
            ("http://evil.example:80/", True),
        ],
    )
    def test_domains_and_all_below_them(self, content: str, *, hit: bool) -> None:
        assert hits(rule("link", "evil.example"), content) is hit

    @pytest.mark.parametrize(
        ("content", "hit"),
        [
            ("node.js is e.g. fine, i.e. no link", False),
            ("www.somewhere.example", True),
            ("ftp://host", True),
            ("shop.example/offer", True),
        ],
    )
    def test_every_link(self, content: str, *, hit: bool) -> None:
        assert hits(rule("link", "*"), content) is hit

    @pytest.mark.parametrize(
        ("content", "hit"),
        [
            ("https://docs.good.example/page", False),
            ("https://good.example.evil.example/", True),
            ("https://good.example@evil.example/", True),
            ("http://localhost/admin", True),
            ("no link at all", False),
        ],
    )
    def test_only_these_may_be_linked_to(self, content: str, *, hit: bool) -> None:
        assert hits(rule("link_unless", "good.example"), content) is hit

    def test_names_in_other_scripts_are_the_same_in_both_spellings(self) -> None:
        assert hits(rule("link", "bücher.example"), "https://xn--bcher-kva.example/")
        assert hits(rule("link", "xn--bcher-kva.example"), "bei Bücher.example")


class TestPatterns:
    def test_they_mask_what_they_match(self) -> None:
        found = rule("pattern", r"\d{4}-\d{4}", r"secret\s+\w+", action="mask")
        content = judge("card 1234-5678, Secret word", None, [found]).content
        assert content == f"card {MASK}, {MASK}"

    def test_one_that_would_stop_a_backtracking_engine_does_not_stop_this_one(self) -> None:
        assert not hits(rule("pattern", "(a+)+$"), "a" * 20_000 + "!")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("pattern", "(a"),
        ("pattern", "a*"),
        ("pattern", "(?:a{1000}){1000}"),
        ("pattern", r"(a)\1"),
        ("word", "\u200b"),
        ("link", "not a domain"),
        ("link", "localhost"),
        ("link_unless", "*"),
    ],
)
def test_what_is_no_rule_is_refused(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        compile_rule(kind, [value])


def test_rules_of_a_room_hold_there_alone() -> None:
    found = rule("word", "dolt", rooms=True)
    assert judge("dolt", HERE, [found]).rejected_by == found.id
    assert judge("dolt", uuid4(), [found]).rejected_by is None


def test_flags_add_up_and_a_rejection_ends_it() -> None:
    one, two = rule("word", "a", action="flag"), rule("word", "b", action="flag")
    assert judge("a b", None, [one, two]).flagged_by == (one.id, two.id)
    assert judge("a b", None, [one, rule("word", "b")]).flagged_by == ()


@given(st.text(max_size=200))
def test_no_text_breaks_it_and_masking_twice_is_masking_once(content: str) -> None:
    rules = [
        rule("word", "dolt", "bad", action="mask"),
        rule("pattern", r"\d+", action="mask"),
        rule("link", "*", action="mask"),
    ]
    first = judge(content, None, rules)
    if first.rejected_by is None:
        assert judge(first.content, None, rules).content == first.content
