import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_temporary_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Sockets of servers with long paths go to the temporary directory: to one of this test.

    It is short, as pytest's own are not, and removing it touches nobody else's sockets.
    """
    # pytest chooses its own place once; that must have happened before we move it.
    tmp_path_factory.getbasetemp()
    made = Path(tempfile.mkdtemp(prefix="cs-"))
    made.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    monkeypatch.setenv("TMPDIR", str(made))
    yield made
    shutil.rmtree(made)
