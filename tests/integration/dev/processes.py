"""Watching processes from outside, by their ids."""

import time
from pathlib import Path

from tests.support.servers import children_of


def family_of(pid: int) -> set[int]:
    """The process and all that descend from it."""
    return {pid}.union(*(family_of(child) for child in children_of(pid)))


def is_alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # A zombie has ended; that nobody has asked for its code is the matter of its parent.
    return text.rpartition(")")[2].split()[0] != "Z"


def mentioning(text: str) -> set[int]:
    """Processes with the text in their command line, wherever they come from."""
    found = set()
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in cmdline.read_bytes():
                found.add(int(cmdline.parent.name))
        except OSError:
            continue
    return found


def gone_within(pids: set[int], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := {pid for pid in pids if is_alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left
