"""docs/security.md promises tests: each of them is there, under this name."""

import re

from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text()
    ]
    assert missing == []


def test_every_row_has_an_answer_and_no_test_is_written_in_another_way() -> None:
    text = PAGE.read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| [A-Z]\d+ ", line)]
    assert len(rows) > 35
    assert [row[0] for row in rows if len(row) != 4 or not row[2].strip()] == []
    # What has no test yet, because there is nothing to test.
    unproved = {row[0].strip() for row in rows if not NAMED.search(row[3])}
    assert unproved <= {"B9"}
    assert len(re.findall(r"tests/[\w/]+\.py::", text)) == len(NAMED.findall(text))
