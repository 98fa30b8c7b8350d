"""A real Redis Cluster: Valkey's own, of as many primaries and replicas as asked for."""

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
        # A replica takes over however old what it has is, and begins to follow at once.
        options += ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]
        return [*super()._command(), *options, "--cluster-port", str(free_port())]

    def ask(self, *command: str) -> Any:
        client = redis.Redis.from_url(self.url)
        try:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    def says(self, section: str, *wanted: str) -> bool:
        """Tell whether lines of CLUSTER INFO, or of a section of INFO, are these."""
        command = ("CLUSTER", "INFO") if section == "cluster" else ("INFO", section)
        client = redis.Redis.from_url(self.url)
        try:
            client.set_response_callback(command[0], lambda answer, **_: answer)
            client.set_response_callback(" ".join(command), lambda answer, **_: answer)
            answer = client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            client.close()
        return set(wanted) <= set(answer.decode().split())


@contextmanager
def redis_cluster(primaries: int, *, replicated: bool = False) -> Iterator[list[ClusterMember]]:
    """Run a Cluster whose slots are shared out evenly; it is ready when this returns.

    `replicated`: each primary has a replica; they come behind the primaries, in the same order.
    """
    directory = Path(tempfile.mkdtemp(prefix="chatserver-tests-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        members = []
        for number in range(primaries * (1 + replicated)):
            member = ClusterMember(
                socket_directory(directory),
                log_file=directory / f"valkey-{number}.log",
                port=free_port(),
            )
            member.start()
            stack.callback(member.stop)
            members.append(member)
        for number, member in enumerate(members):
            if number < primaries:
                start, end = (SLOTS * at // primaries for at in (number, number + 1))
                member.ask("CLUSTER", "ADDSLOTSRANGE", str(start), str(end - 1))
            if number:
                bus = str(_bus_port(members[0]))
                member.ask("CLUSTER", "MEET", "127.0.0.1", str(members[0].port), bus)
        _wait_until(members, "cluster", "cluster_state:ok", f"cluster_size:{primaries}")
        _wait_until(members, "cluster", f"cluster_known_nodes:{len(members)}")
        for number, replica in enumerate(members[primaries:]):
            replica.ask("CLUSTER", "REPLICATE", members[number].ask("CLUSTER", "MYID").decode())
        _wait_until(members[primaries:], "replication", "master_link_status:up")
        yield members


def _bus_port(member: ClusterMember) -> int:
    # `id host:port@bus-port,name flags ...`
    return int(member.ask("CLUSTER", "NODES").decode().partition("@")[2].split()[0].split(",")[0])


def _wait_until(members: list[ClusterMember], section: str, *wanted: str) -> None:
    deadline = time.monotonic() + READY_S
    for member in members:
        while not member.says(section, *wanted):
            assert time.monotonic() < deadline, f"the Cluster does not come up: {wanted}"
            time.sleep(0.05)
