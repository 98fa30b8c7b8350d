"""The tree is as CONTRIBUTING.md promises, so that one guess finds a file."""

import tomllib
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, committed_files, features, python_files

LONGEST = 400


def test_no_file_is_so_long_that_it_must_hold_a_second_noun() -> None:
    lengths = {
        str(file): len((ROOT / file).read_text().splitlines())
        for file in python_files("chatserver", "workers")
    }
    assert len(lengths) > 20
    assert {file: length for file, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.parametrize("kind", ["unit", "integration"])
def test_every_folder_of_tests_names_an_existing_noun(kind: str) -> None:
    nouns = {
        path.name for path in (ROOT / "chatserver").iterdir() if (path / "__init__.py").is_file()
    } | {"workers", "migrations"}
    tested = {
        file.parts[2]
        for file in committed_files()
        if file.parts[:2] == ("tests", kind) and len(file.parts) > 3
    }
    assert tested
    assert tested - nouns == set()


def test_every_feature_is_held_to_the_order_of_its_files() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    containers = [
        container
        for each in contracts
        if each["id"].startswith("feature")
        for container in each["containers"]
    ]
    assert len(containers) == len(set(containers))
    assert set(containers) == {f"chatserver.{feature}" for feature in features()}


def test_every_test_is_named_so_that_pytest_finds_it() -> None:
    misnamed = [
        str(file)
        for file in python_files("tests")
        if file.parts[1] in {"unit", "integration", "e2e"}
        and not file.name.startswith("test_")
        and file.name not in {"conftest.py", "__init__.py"}
        and "def test_" in (ROOT / file).read_text()
    ]
    assert misnamed == []


def test_no_package_of_the_server_lacks_its_marker() -> None:
    folders = {file.parent for file in python_files("chatserver", "workers")}
    assert {str(folder) for folder in folders if not _is_package(folder)} == set()


def _is_package(folder: Path) -> bool:
    return (ROOT / folder / "__init__.py").is_file()
