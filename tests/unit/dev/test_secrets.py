from pathlib import Path

import pytest

from chatserver.dev.errors import DataDirectoryError
from chatserver.dev.secrets import load_or_make_secrets, write_private


def test_secrets_are_made_once_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    made = load_or_make_secrets(file, database_exists=False)
    assert load_or_make_secrets(file, database_exists=True) == made


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    first = load_or_make_secrets(tmp_path / "1", database_exists=False)
    second = load_or_make_secrets(tmp_path / "2", database_exists=False)
    assert not set(vars(first).values()) & set(vars(second).values())
    assert len(set(vars(first).values())) == 6
    assert all(len(secret) >= 32 for secret in vars(first).values())


def test_only_the_owner_can_read_the_secrets(tmp_path: Path) -> None:
    load_or_make_secrets(tmp_path / "secrets.json", database_exists=False)
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_writing_again_closes_a_file_that_was_open_to_others(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600


def test_no_new_secrets_are_made_for_a_database_that_has_others(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="put it back, or begin anew with --reset"):
        load_or_make_secrets(tmp_path / "secrets.json", database_exists=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"operator_key": "x", "more": 1}'])
def test_damaged_secrets_are_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(text)
    with pytest.raises(DataDirectoryError, match="--reset"):
        load_or_make_secrets(file, database_exists=False)


def test_secrets_do_not_show_in_tracebacks_and_logs(tmp_path: Path) -> None:
    made = load_or_make_secrets(tmp_path / "secrets.json", database_exists=False)
    assert made.operator_key not in repr(made)
