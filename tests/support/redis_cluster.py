"""A real Redis Cluster: Valkey's own, of as many primaries as asked for, without replicas."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from chatserver.dev.data_directory import socket_directory
from tests.support.servers import TestValkey, free_port

SLOTS: Final = 16384
READY_S: Final = 20.0


class ClusterMember(TestValkey):
    """One server of a Cluster. It has no databases but 0."""

    def prepare(self) -> None:
        super().prepare()
        self._state.unlink(missing_ok=True)  # what it knew of a Cluster that is gone

    @property
    def _state(self) -> Path:
        return self.run_directory / f"nodes-{self.port}.conf"

    def _command(self) -> list[str]:
        options = ["--cluster-enabled", "yes", "--cluster-config-file", self._state.name]
        options += ["--dir", str(self.run_directory), "--cluster-node-timeout", "2000"]
        return [*super()._command(), *options, "--cluster-port", str(free_port())]

    def ask(self, *command: str) -> Any:
        client = redis.Redis.from_url(self.url)
        try:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            client.close()


@contextmanager
def redis_cluster(primaries: int) -> Iterator[list[ClusterMember]]:
    """Run a Cluster whose slots are shared out evenly; it is ready when this returns."""
    directory = Path(tempfile.mkdtemp(prefix="chatserver-tests-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        members = []
        for number in range(primaries):
            member = ClusterMember(
                socket_directory(directory),
                log_file=directory / f"valkey-{number}.log",
                port=free_port(),
            )
            member.start()
            stack.callback(member.stop)
            members.append(member)
        for number, member in enumerate(members):
            start, end = (SLOTS * at // primaries for at in (number, number + 1))
            member.ask("CLUSTER", "ADDSLOTSRANGE", str(start), str(end - 1))
            if number:
                bus = str(_bus_port(members[0]))
                member.ask("CLUSTER", "MEET", "127.0.0.1", str(members[0].port), bus)
        _wait_until_whole(members)
        yield members


def _bus_port(member: ClusterMember) -> int:
    # `id host:port@bus-port,name flags ...`
    return int(member.ask("CLUSTER", "NODES").decode().partition("@")[2].split()[0].split(",")[0])


def _wait_until_whole(members: list[ClusterMember]) -> None:
    deadline = time.monotonic() + READY_S
    wanted = {"cluster_state:ok", f"cluster_size:{len(members)}"}
    for member in members:
        while not wanted <= set(member.ask("CLUSTER", "INFO").decode().split()):
            assert time.monotonic() < deadline, "the Cluster does not come up"
            time.sleep(0.05)
