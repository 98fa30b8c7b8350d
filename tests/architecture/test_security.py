"""docs/security.md and docs/delivery-promises.md name tests: each of them is there."""

import re

import pytest

from tests.architecture.tree import ROOT

DOCS = ROOT / "docs"
# Pages, how many rows and tests they have at least, and what nothing can prove.
PAGES = [("security.md", 35, set[str]()), ("delivery-promises.md", 25, set[str]())]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize(("page", "least", "_"), PAGES)
def test_every_test_that_is_named_exists(page: str, least: int, _: set[str]) -> None:
    named = NAMED.findall((DOCS / page).read_text())
    assert len(named) >= least
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert missing == []


@pytest.mark.parametrize(("page", "least", "unprovable"), PAGES)
def test_every_row_has_an_answer_and_no_test_is_written_in_another_way(
    page: str, least: int, unprovable: set[str]
) -> None:
    text = (DOCS / page).read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| [A-Z]\d+ ", line)]
    assert len(rows) >= least
    assert [row[0] for row in rows if len(row) != 4 or not row[2].strip()] == []
    # What has no test yet, because there is nothing to test.
    unproved = {row[0].strip() for row in rows if not NAMED.search(row[3])}
    assert unproved <= unprovable
    assert len(re.findall(r"tests/[\w/]+\.py::", text)) == len(NAMED.findall(text))
