"""Ends what a killed supervisor left behind.

Every child is asked by the kernel to end when its parent dies, but a child may hang in its own
shutdown, may have children of its own, and some systems have no such signal. This program is run
as a process of its own, reads `+GROUP` and `-GROUP` lines (ids of process groups) and, when its
input ends before every group was taken back, ends the groups. It imports nothing of the project,
so that it starts in milliseconds and stays small.
"""

import os
import signal
import sys
import time

PATIENCE_SECONDS = 4.0


def send(group: int, number: int) -> bool:
    """Whether the group still had a process to send the signal to."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end(groups: set[int], *, ask: bool) -> None:
    """Wait for the groups to end by themselves (asking them first, if told to), then kill."""
    if ask:
        for group in groups:
            send(group, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_SECONDS
    left = set(groups)
    while left and time.monotonic() < deadline:
        left = {group for group in left if send(group, 0)}
        time.sleep(0.05)
    for group in left:
        send(group, signal.SIGKILL)


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    end(groups, ask="--ask" in sys.argv[1:])


if __name__ == "__main__":
    main()
