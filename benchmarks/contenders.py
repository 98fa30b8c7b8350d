"""The servers that are compared, and how each is started and spoken to."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.machine import ROOT, Server
from chatserver import realtime

_PEERS: Final = ROOT / "benchmarks" / "peers"


@dataclass(frozen=True)
class Contender:
    """`stored`: every message is committed to PostgreSQL before it is acknowledged and shown."""

    key: str
    title: str
    command: tuple[str, ...]
    event: str = "say"
    stored: bool = False
    says_ready: bool = False
    port_after: str = "port "


NODE: Final = Contender("node", "Node Socket.IO", ("node", str(_PEERS / "node.mjs")))
_PYTHON: Final = (sys.executable, str(_PEERS / "python.py"))
STOCK: Final = Contender("stock", "python-socketio, uvloop", (*_PYTHON, "uvloop", "stock"))
STOCK_ASYNCIO: Final = Contender(
    "stock_asyncio", "python-socketio, asyncio", (*_PYTHON, "asyncio", "stock")
)
BARE: Final = Contender("bare", "create_server (bare engine)", (*_PYTHON, "uvloop", "ours"))
ENGINE: Final = Contender(
    "engine",
    "our hub, nothing stored",
    (sys.executable, str(_PEERS / "engine.py")),
    says_ready=True,
)
PRODUCT: Final = Contender(
    "product",
    "chatserver, every message committed",
    (sys.executable, "-m", "chatserver", "serve", "--host", "127.0.0.1", "--port", "0"),
    event="message.send",
    stored=True,
    says_ready=True,
    port_after='"url": "http://127.0.0.1:',
)


def has_bare_engine() -> bool:
    """Whether this version has the public factory of the bare engine."""
    return hasattr(realtime, "create_server")


@contextmanager
def started(
    contender: Contender,
    *,
    nodes: int,
    redis_url: str | None,
    product: Mapping[str, str],
    directory: Path,
) -> Iterator[list[Server]]:
    """Run one or more nodes; `product` is the environment of chatserver."""
    environment: dict[str, str] = {"PYTHONPATH": str(ROOT)}
    if redis_url and nodes > 1:
        environment["BENCH_REDIS"] = redis_url
    if contender.stored:
        environment |= product
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Server(
                    contender.command,
                    {**environment, "NODE_ID": f"bench-{at}", "BENCH_NODE": f"bench-{at}"},
                    directory / f"{contender.key}-{at}.log",
                    contender.port_after,
                )
            )
            for at in range(nodes)
        ]
