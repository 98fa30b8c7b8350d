import os
from pathlib import Path

import pytest

from chatserver.dev.data_directory import (
    LONGEST_SOCKET_NAME,
    LONGEST_SOCKET_PATH,
    DataDirectory,
    make_private,
    socket_directory,
)
from chatserver.dev.errors import DataDirectoryError, DirectoryInUseError


def test_it_is_made_with_its_parents(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a" / "b").open() as data:
        assert data.logs.is_dir()
        assert data.path.stat().st_mode & 0o777 == 0o711


def test_the_modes_of_a_directory_that_was_there_are_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    DataDirectory(tmp_path).open().close()
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_second_user_of_the_directory_is_told_who_has_it(tmp_path: Path) -> None:
    with (
        DataDirectory(tmp_path).open(),
        pytest.raises(DirectoryInUseError, match=rf"process {os.getpid()}\).*--data-dir"),
    ):
        DataDirectory(tmp_path).open()


def test_it_can_be_opened_again_after_closing(tmp_path: Path) -> None:
    DataDirectory(tmp_path).open().close()
    DataDirectory(tmp_path).open().close()


def test_a_directory_with_files_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for reset in (False, True):
        with pytest.raises(DataDirectoryError, match=r"left alone.*--data-dir"):
            DataDirectory(tmp_path).open(reset=reset)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_fresh_volume_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    with DataDirectory(tmp_path).open(reset=True):
        assert (tmp_path / "lost+found").is_dir()


def test_reset_deletes_everything_that_was_kept(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    with DataDirectory(tmp_path / "data").open() as data:
        data.secrets_file.write_text("{}")
        data.postgres.mkdir()
        (data.postgres / "PG_VERSION").write_text("18")
        (data.path / "link").symlink_to(outside)
    with DataDirectory(data.path).open(reset=True):
        left = {entry.name for entry in data.path.iterdir()}
    assert left == {".chatserver-data", "lock", "logs"}
    assert (outside / "kept").exists()


def test_without_reset_everything_stays(tmp_path: Path) -> None:
    with DataDirectory(tmp_path).open() as data:
        data.secrets_file.write_text("{}")
    with DataDirectory(tmp_path).open():
        assert data.secrets_file.read_text() == "{}"


def test_a_path_that_cannot_be_a_directory_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match=r"cannot be written.*--data-dir"):
        DataDirectory(tmp_path / "file" / "data").open()


def test_sockets_live_below_the_data_while_the_path_is_short() -> None:
    assert socket_directory(Path("/srv/data")) == Path("/srv/data/run")


@pytest.mark.parametrize("length", [60, 84, 85, 86, 87, 200])
def test_no_socket_path_is_longer_than_the_system_allows(length: int) -> None:
    data = Path("/" + "d" * (length - 1))
    chosen = socket_directory(data)
    assert len(str(chosen / LONGEST_SOCKET_NAME)) <= LONGEST_SOCKET_PATH
    assert (chosen == data / "run") == (length + len("/run/.s.PGSQL.5432") <= 103)


@pytest.mark.parametrize("character", [",", " ", "%", "?", "'", "é"])
def test_no_socket_path_holds_what_addresses_could_misread(character: str) -> None:
    assert socket_directory(Path(f"/srv/a{character}b")) != Path(f"/srv/a{character}b/run")


def test_two_long_paths_have_two_places_for_sockets() -> None:
    first, second = Path("/" + "d" * 200 + "1"), Path("/" + "d" * 200 + "2")
    assert socket_directory(first) != socket_directory(second)
    assert socket_directory(first) == socket_directory(first)


def test_a_place_that_somebody_else_took_is_not_used(tmp_path: Path) -> None:
    taken = tmp_path / "run"
    taken.symlink_to(tmp_path)
    with pytest.raises(DataDirectoryError, match="is not ours"):
        make_private(taken, {os.geteuid()})
    (tmp_path / "strange").mkdir()
    with pytest.raises(DataDirectoryError, match="is not ours"):
        make_private(tmp_path / "strange", {os.geteuid() + 1})


def test_a_private_directory_is_closed_even_if_it_was_open(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    make_private(tmp_path / "run", {os.geteuid()})
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
