import signal
from pathlib import Path

import pytest

from chatserver.dev.privileges import Privileges, unreachable

STRANGER = 61_999


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A directory whose ancestors below the temporary directory may be entered by everyone."""
    made = tmp_path / "open" / "inner"
    made.mkdir(parents=True)
    return made


def test_a_closed_parent_is_found_from_the_top(tmp_path: Path, open_to_all: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "open").chmod(0o711)
    found = unreachable(open_to_all / "file", STRANGER)
    assert found is not None
    # pytest's own directories above may be closed already.
    assert tmp_path.is_relative_to(found)


def test_entering_is_enough_reading_is_not_needed() -> None:
    assert unreachable(Path("/usr/bin/env"), STRANGER) is None


def test_an_ordinary_user_changes_no_user() -> None:
    ours = Privileges(setpriv="/usr/bin/setpriv", service_uid=None, setup_uid=None)
    assert ours.command(["server", "-x"], death_signal=signal.SIGINT) == [
        *("/usr/bin/setpriv", "--pdeathsig", "SIGINT", "--", "server", "-x")
    ]


def test_without_setpriv_the_command_runs_as_it_is() -> None:
    ours = Privileges(setpriv=None, service_uid=None, setup_uid=None)
    assert ours.command(["server", "-x"]) == ["server", "-x"]
    assert not ours.ends_with_parent


def test_where_everyone_may_enter_no_capability_is_given() -> None:
    ours = Privileges(setpriv="/usr/bin/setpriv", service_uid=STRANGER, setup_uid=STRANGER)
    command = ours.command(["/usr/bin/env"], reach=[Path("/usr/bin")], uid=STRANGER)
    assert command[-4:] == ["--clear-groups", "--no-new-privs", "--", "/usr/bin/env"]
    assert not any("caps" in word for word in command)
