"""What leaves this machine fits every machine."""

import re
from typing import Final

import pytest

from tests.architecture.tree import ROOT, committed_files

# Spelled so that this file does not match itself.
REGISTRY: Final = re.compile(
    r"(?:files\.python[h]osted|[p]ypi)\.(?:org|io)|registry\.(?:[n]pmjs|yarn[p]kg)|deb\.[d]ebian"
    r"|--(?:extra-)?index[-]url|--find[-]links"
)
MACHINE_PATH: Final = re.compile(r"(?<![\w.~$})])/(?:home|root|work|farm|Users)/[\w.]")
CONFLICT: Final = re.compile(r"^(?:<{7} |>{7} )", re.MULTILINE)


def texts() -> dict[str, str]:
    found = {}
    for file in committed_files():
        content = (ROOT / file).read_bytes()
        if b"\0" not in content:
            found[str(file)] = content.decode("utf-8")
    return found


@pytest.mark.parametrize(
    "pattern", [REGISTRY, MACHINE_PATH, CONFLICT], ids=["registry", "machine path", "conflict"]
)
def test_no_committed_file_holds(pattern: re.Pattern[str]) -> None:
    everything = texts()
    assert len(everything) > 30
    found = {
        file: match.group() for file, text in everything.items() if (match := pattern.search(text))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (REGISTRY, "https://" + "pypi" + ".org/simple"),
        (REGISTRY, '"resolved": "https://registry.' + 'npmjs.org/ms/-/ms-2.1.3.tgz"'),
        (REGISTRY, "--index" + "-url https://mirror.example/simple"),
        (MACHINE_PATH, "cd " + "/home" + "/alice/chatserver"),
        (CONFLICT, "<" * 7 + " HEAD"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        named = set(re.findall(r"(?:^[\s$]*|`)make ([a-z-]+)", text, re.MULTILINE))
        assert {"dev", "test"} <= named, name
        assert named <= targets, name


def test_every_target_is_explained_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert sorted(phony.split()) == sorted(explained)


def test_ci_runs_what_check_runs_in_the_same_order() -> None:
    (check,) = re.findall(r"^check: (.*) ##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (ci,) = re.findall(r"^for target in (.*); do$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert ci == check
