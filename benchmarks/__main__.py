"""Compare this server with its peers on the same work: `python -m benchmarks [--quick]`."""

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import chart, page, report
from benchmarks.cast import Cast, of_peers, of_product
from benchmarks.contenders import BARE, PRODUCT, Contender, has_bare_engine, started
from benchmarks.machine import LOAD_CORE, ROOT, on_core
from benchmarks.works import ALL_WORKS, Arrive, Pids, Talk
from tests.support.servers import Servers

_NODE_MODULES: Final = ROOT / "benchmarks" / "peers" / "node_modules"


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    works: tuple[Talk | Arrive, ...]
    only: frozenset[str]
    file: Path

    def contenders(self, work: Talk | Arrive) -> list[Contender]:
        return [
            each
            for each in work.contenders
            if (each is not BARE or has_bare_engine()) and (not self.only or each.key in self.only)
        ]


async def run(plan: Plan, servers: Servers, console: Console) -> report.Rounds:
    database = servers.fresh_database()
    product = {**database.settings(), "LIMITS_FACTOR": "1000", "LOG_FORMAT": "json"}
    pid = servers.postgres.pid
    redis_pid = servers.valkey.pid
    assert pid is not None
    assert redis_pid is not None
    pids = Pids(pid, redis_pid)
    rounds: report.Rounds = defaultdict(list)
    casts: dict[bool, Cast] = {False: of_peers()}
    with (
        tempfile.TemporaryDirectory(prefix="chatserver-bench-") as logs,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as progress,
    ):
        total = plan.rounds * sum(len(plan.contenders(work)) for work in plan.works)
        task = progress.add_task("a thousand users", total=total)
        if not plan.only or PRODUCT.key in plan.only:
            with started(
                PRODUCT, nodes=1, redis_url=None, product=product, directory=Path(logs)
            ) as nodes:
                url = f"http://127.0.0.1:{nodes[0].port}"
                casts[True] = await of_product(url, database.secrets.operator_key)
        for turn in range(plan.rounds):
            for work in plan.works:
                # In turn, so that whatever else the machine does meets all of them.
                contenders = plan.contenders(work)
                for contender in contenders if turn % 2 == 0 else reversed(contenders):
                    progress.update(task, description=f"{work.key}: {contender.title}")
                    try:
                        with started(
                            contender,
                            nodes=work.nodes,
                            redis_url=database.redis_url,
                            product=product,
                            directory=Path(logs),
                        ) as nodes:
                            cast = casts[contender.stored]
                            values = await work.measure(contender, nodes, cast, pids, plan.seconds)
                        rounds[work.key, contender.key].append(values)
                    except (RuntimeError, OSError) as error:
                        # One that can't do the work is left out, not a reason to have no figures.
                        console.print(f"[red]{work.key}, {contender.title} failed:[/] {error!r}")
                    progress.advance(task)
                    # A run that is broken off leaves what it has found.
                    report.write(rounds, plan.seconds, plan.file)
    return rounds


def publish(found: report.Medians) -> None:
    chart.write(found)
    page.write(found)


def main() -> None:
    keys = [work.key for work in ALL_WORKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: three minutes")
    parser.add_argument("--rounds", type=int, help="how often everyone does everything (5)")
    parser.add_argument("--seconds", type=float, help="how long each talks each time (6)")
    parser.add_argument("--work", action="append", choices=keys, help="only this work")
    parser.add_argument("--only", action="append", default=[], help="only this contender")
    parser.add_argument("--name", help="the name of the file in benchmarks/results")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write the figures and the chart of docs/performance.md, too",
    )
    parser.add_argument("--again", metavar="NAME", help="publish a former run, measure nothing")
    arguments = parser.parse_args()
    plan = Plan(
        rounds=arguments.rounds or (1 if arguments.quick else 5),
        seconds=arguments.seconds or (2.0 if arguments.quick else 6.0),
        works=tuple(w for w in ALL_WORKS if not arguments.work or w.key in arguments.work),
        only=frozenset(arguments.only),
        file=report.file_of(arguments.name),
    )
    if arguments.again:
        publish(report.medians(report.read(report.file_of(arguments.again))))
        return
    if not _NODE_MODULES.exists():
        npm = ["npm", "ci", "--no-audit", "--no-fund"]
        subprocess.run(npm, cwd=_NODE_MODULES.parent, check=True)
    console = Console(width=None if sys.stdout.isatty() else 120)
    # The load, PostgreSQL and Redis share a core, the server has one of its own.
    with on_core(LOAD_CORE), Servers(tcp=True, durable=True) as servers:
        rounds = uvloop.run(run(plan, servers, console))
    medians = report.medians(rounds)
    console.print(report.table(rounds))
    console.print(f"written: {plan.file.relative_to(ROOT)}")
    if arguments.publish:
        publish(medians)
    faults = report.faults(medians)
    for fault in faults:
        console.print(f"[red]{fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
