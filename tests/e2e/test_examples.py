"""The examples of README and docs, as a reader pastes them, against one running server.

An example is run when its fence says so: ```sh run, ```js run. All of a page are one script, in
their order, behind the ```sh setup of the quick start.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatserver.dev.demo import introduce
from chatserver.dev.environment import write_environment
from tests.support.nodes import ROOT, Cluster, Node
from tests.support.servers import Servers, run

FENCE = re.compile(r"^( *)```(\w+) ([\w ]+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LONGEST_S = 120
NODE_MODULES = ROOT / "tests" / "support" / "js" / "node_modules"
# A refusal must fail the example, which is for people and does not ask; a busy machine must not.
CURL = '#!/bin/sh\nexec {curl} --fail-with-body --retry 5 --retry-delay 1 "$@"\n'
PROGRAM = '#!/bin/sh\nexec {python} -m chatserver "$@"\n'

pytestmark = pytest.mark.js


def examples(page: Path, mark: str) -> list[tuple[str, str]]:
    """Give language and text of a page's examples with this mark."""
    found = FENCE.findall(page.read_text())
    return [
        (language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, marks, text in found
        if mark in marks.split()
    ]


RUNNABLE = [page for page in PAGES if examples(page, "run")]
[(_, SETUP)] = examples(ROOT / "docs" / "quick-start.md", "setup")


class Reader:
    """Somebody with `chatserver dev` in one terminal, who pastes into another.

    What he finds in `.chatserver` is made by the very functions of `dev`; the processes are those
    of the tests, which are there already.
    """

    def __init__(self, directory: Path, cluster: Cluster, node: Node) -> None:
        self.directory = directory
        self._make_programs()
        kept = directory / ".chatserver"
        kept.mkdir()
        secrets = cluster.database.secrets
        run(introduce(node.url, operator_key=secrets.operator_key, file=kept / "demo.json"))
        write_environment(kept / "env", cluster.database.settings())
        (directory / "node_modules").symlink_to(NODE_MODULES)

    def _make_programs(self) -> None:
        programs = self.directory / "bin"
        programs.mkdir()
        curl = shutil.which("curl")
        assert curl is not None
        for name, text in (("curl", CURL), ("chatserver", PROGRAM)):
            (programs / name).write_text(text.format(curl=curl, python=sys.executable))
            (programs / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def paste(self, page: Path) -> "subprocess.CompletedProcess[str]":
        script = ["set -euo pipefail", SETUP]
        for number, (language, text) in enumerate(examples(page, "run")):
            if language in {"sh", "bash"}:
                script.append(text)
                continue
            file = self.directory / f"{page.stem}-{number}.{'mjs' if language == 'js' else 'py'}"
            file.write_text(text)
            script.append(f"{'node' if language == 'js' else sys.executable} {file.name}")
        return subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )


@pytest.fixture(scope="module")
def reader(servers: Servers) -> Iterator[Reader]:
    database = servers.fresh_database()
    cluster = Cluster(database)
    with tempfile.TemporaryDirectory(prefix="cs-docs-") as made:
        try:
            [node] = run(cluster.nodes("docs"))
            run(cluster.workers())
            yield Reader(Path(made), cluster, node)
        finally:
            cluster.close()
            servers.drop(database)


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_the_examples_of_a_page_do_what_they_say(reader: Reader, page: Path) -> None:
    ran = reader.paste(page)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def test_most_pages_have_examples_that_are_run() -> None:
    assert len(RUNNABLE) >= 15
