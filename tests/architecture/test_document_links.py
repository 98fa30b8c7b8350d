"""Documents lead to each other: no link ends nowhere, and no page is left out of the list."""

import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, committed_files

PAGES = [file for file in committed_files() if file.suffix == ".md" and file.parts[0] != "tests"]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
INDEX = Path("docs/README.md")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_link_ends_nowhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCED.sub("", (ROOT / page).read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page.parent / path).resolve() if path else (ROOT / page)
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_the_list() -> None:
    listed = {
        (ROOT / "docs" / target.partition("#")[0]).resolve()
        for target in LINK.findall((ROOT / INDEX).read_text())
        if not target.startswith("http")
    }
    pages = {(ROOT / page).resolve() for page in PAGES if page.parent == Path("docs")}
    assert pages - listed - {(ROOT / INDEX).resolve()} == set()


def test_the_readme_leads_to_the_list() -> None:
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()


def anchors(page: Path) -> set[str]:
    """Name the headings of a page as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}
