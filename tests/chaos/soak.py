"""Whether memory stays flat: `python -m tests.chaos.soak --minutes 30`.

Two nodes, a worker and a scheduler under a load that uses everything again and again: messages,
retries, rooms that come and go, logins, connections that are cut. Every few seconds the resident
memory of each process is written down. At the end it prints a line for each process: where it
began, where it ended, and the slope of a straight line through all but the first third, in MB an
hour; and then what the checker of the faults says of everything that was sent.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from tests.chaos.checker import Verdict
from tests.chaos.stage import Stage, on_stage, resident_bytes, settled
from tests.support.nodes import Process
from tests.support.servers import Servers

RESULTS: Final = Path(__file__).parents[2] / "benchmarks" / "results" / "soak.json"
EVERY_S: Final = 5.0
MESSAGES_PER_S: Final = 40
# How often all connections are cut, and how often a room is made and deleted.
CUT_EVERY_S: Final = 30.0
ROOM_EVERY_S: Final = 0.5
# What still counts as flat: a slope of less, or so little in all that it is noise.
FLAT_MB_PER_H: Final = 30.0
NOISE_MB: Final = 6.0
MB: Final = 1 << 20


@dataclass
class Line:
    """The memory of one process: (seconds, bytes)."""

    name: str
    points: list[tuple[float, int]] = field(default_factory=list)

    @property
    def settled(self) -> list[tuple[float, int]]:
        """Leave out the first third, in which caches and pools fill."""
        return self.points[len(self.points) // 3 :]

    def slope_mb_per_h(self) -> float:
        return slope(self.settled) * 3600 / MB

    def grown_mb(self) -> float:
        return (self.settled[-1][1] - self.settled[0][1]) / MB

    def is_flat(self) -> bool:
        return self.slope_mb_per_h() < FLAT_MB_PER_H or self.grown_mb() < NOISE_MB

    def as_json(self) -> dict[str, Any]:
        return {
            "process": self.name,
            "first_mb": round(self.points[0][1] / MB, 1),
            "last_mb": round(self.points[-1][1] / MB, 1),
            "most_mb": round(max(size for _, size in self.points) / MB, 1),
            "slope_mb_per_h": round(self.slope_mb_per_h(), 1),
            "is_flat": self.is_flat(),
        }


def slope(points: Sequence[tuple[float, int]]) -> float:
    """Give the slope of the line with the least squares, in bytes a second."""
    at, size = fmean(x for x, _ in points), fmean(y for _, y in points)
    width = sum((x - at) ** 2 for x, _ in points)
    return sum((x - at) * (y - size) for x, y in points) / width if width else 0.0


async def soak(minutes: float, *, seed: int = 1) -> tuple[list[Line], Verdict]:
    """Put the load on for so long; give the memory of each process, and what was lost."""
    with Servers(tcp=True) as servers, tempfile.TemporaryDirectory(prefix="cs-soak-") as directory:
        history = Path(directory) / "history"
        async with on_stage(servers, history, seed=seed, users=8, rooms=6) as stage:
            await stage.cluster.workers()
            processes = stage.cluster.processes
            lines = {each.name: Line(each.name) for each in processes}
            stage.load(MESSAGES_PER_S)
            loads = [
                asyncio.create_task(_rooms_come_and_go(stage)),
                asyncio.create_task(_connections_are_cut(stage)),
            ]
            await _watch(processes, lines, minutes * 60)
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            await stage.calm()
            return list(lines.values()), await stage.verdict()


async def _watch(processes: Sequence[Process], lines: dict[str, Line], seconds: float) -> None:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        at = time.monotonic() - began
        for each in processes:
            lines[each.name].points.append((at, resident_bytes(each.pid)))
        await asyncio.sleep(EVERY_S)


async def _rooms_come_and_go(stage: Stage) -> None:
    number = 0
    while True:
        tenant = stage.random.choice(stage.tenants)
        number += 1
        guest = f"{tenant.canary}-guest-{number % 50}"
        api = tenant.api
        await settled(partial(api.put, f"/users/{guest}", {"display_name": f"Guest {number}"}))
        await settled(partial(api.post, f"/users/{guest}/login", {"device_id": "one"}))
        body = {"type": "group", "member_ids": [guest, stage.random.choice(tenant.users)]}
        room = (await settled(partial(api.post, "/rooms", body)))["id"]
        message = {"content": f"{tenant.canary} hello", "sender_id": guest}
        await settled(partial(api.post, f"/rooms/{room}/messages", message))
        await settled(partial(api.delete, f"/rooms/{room}"))
        await asyncio.sleep(ROOM_EVERY_S)


async def _connections_are_cut(stage: Stage) -> None:
    while True:
        await asyncio.sleep(CUT_EVERY_S)
        await stage.swarm.do("lose_all")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lines, verdict = asyncio.run(soak(given.minutes, seed=given.seed))
    rows = [line.as_json() for line in lines]
    busy = f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
    print(f"{given.minutes:g} minutes, {busy}")
    for row in rows:
        flat = "flat" if row["is_flat"] else "NOT FLAT"
        print(
            f"{row['process']:<10} {row['first_mb']:>7} -> {row['last_mb']:>7} MB, most"
            f" {row['most_mb']:>7}, {row['slope_mb_per_h']:>+7} MB/h  {flat}"
        )
    print(
        f"sent {verdict.sends}, acked {verdict.acked}, lost {verdict.lost}, repeated"
        f" {verdict.repeated}, out of order {verdict.disordered}"
    )
    figures = {"minutes": given.minutes, "processes": rows, **verdict.figures()}
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    for fault in verdict.faults[:10]:
        print(fault, file=sys.stderr)
    return 0 if all(line.is_flat() for line in lines) and not verdict.faults else 1


if __name__ == "__main__":
    sys.exit(main())
