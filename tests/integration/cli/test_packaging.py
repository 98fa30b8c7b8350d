"""The wheel works where there is no checkout: migrations, pages and carried files are inside."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from chatserver.infra import revisions
from tests.support.servers import Database, Servers

ROOT = Path(__file__).parents[3]

# A build, and programs that start.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built anew and unpacked where nothing else of the project is."""
    made = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = made.glob("*.whl")
    place = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place)
    return place


def run(installed: Path, home: Path, *command: str, **environment: str) -> bytes:
    """Run the console script's function with the installed package alone."""
    # Site-packages have the dependencies, and a path to the checkout: ours comes before it.
    start = "import sys; sys.argv = ['chatserver', *sys.argv[1:]]; import chatserver.__main__ as m"
    check = f"assert m.__file__.startswith({str(installed)!r}), m.__file__"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{start}; {check}; m.main()", *command],
        cwd=home,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_it_has_what_it_needs_and_nothing_else(installed: Path) -> None:
    tops = {each.name for each in installed.iterdir()}
    (record,) = [name for name in tops if name.endswith(".dist-info")]
    assert tops == {"chatserver", "workers", "migrations", record}
    assert (
        "chatserver = chatserver.__main__:main"
        in (installed / record / "entry_points.txt").read_text()
    )
    there = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    # Whatever is beside the code in the checkout is beside it here, too.
    wanted = {
        path.relative_to(ROOT)
        for top in ("chatserver", "workers", "migrations")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - there == set()


def test_it_prints_its_help_and_its_documents(installed: Path, tmp_path: Path) -> None:
    assert b"migrate" in run(installed, tmp_path, "--help")
    assert orjson.loads(run(installed, tmp_path, "openapi"))["openapi"] == "3.1.0"


@pytest.fixture
def blank(servers: Servers) -> Iterator[Database]:
    made = servers.empty_database()
    yield made
    servers.drop(made)


def test_it_migrates_an_empty_database(installed: Path, tmp_path: Path, blank: Database) -> None:
    said = run(installed, tmp_path, "migrate", "--json", **blank.settings())
    assert orjson.loads(said)["revision"] == revisions.head()
