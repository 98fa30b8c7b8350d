import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from structlog.testing import capture_logs

from chatserver.infra.watchdog import LoopWatch, stack_of

BLOCKED_S = 0.06
ROOT = Path(__file__).parents[3]


def hang(seconds: float) -> None:
    time.sleep(seconds)


async def watched(*pauses_s: float, tell_every_s: float = 10.0) -> tuple[LoopWatch, list[str]]:
    watch = LoopWatch(blocked_s=BLOCKED_S, tell_every_s=tell_every_s)
    watch.start()
    with capture_logs() as lines:
        for pause_s in pauses_s:
            await asyncio.sleep(0.05)
            hang(pause_s)
        await asyncio.sleep(0.05)
        watch.stop()
    return watch, [str(line) for line in lines if line["event"].startswith("loop_")]


async def test_a_loop_that_hangs_is_told_of_with_its_stack() -> None:
    watch, lines = await watched(0.3)
    during, after = lines
    assert "'loop_blocked'" in during
    # While it hangs, not afterwards: the innermost line is where it does.
    assert "test_watchdog.py:19 hang" in during
    assert "loop_was_blocked" in after
    assert watch.blocked == 1
    assert 0.2 < watch.blocked_for_s < 2
    shown = {sample.name: sample.value for each in watch.collect() for sample in each.samples}
    assert shown["chatserver_loop_blocked_total"] == 1
    assert shown["chatserver_loop_lag_seconds"] > 0.2


async def test_one_that_runs_is_not() -> None:
    watch, lines = await watched(0.0, 0.0)
    assert lines == []
    assert watch.blocked == 0


async def test_stacks_are_told_seldom_and_those_untold_are_counted() -> None:
    watch, lines = await watched(0.2, 0.2, 0.2)
    assert sum("'loop_blocked'" in line for line in lines) == 1
    assert watch.blocked == 3


def test_the_thread_ends_with_the_watch() -> None:
    asyncio.run(watched(0.0))
    deadline = time.monotonic() + 5
    while any(each.name == "loop watchdog" for each in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stack_has_no_values() -> None:
    def secret(password: str) -> str:
        assert password
        return stack_of(sys._getframe())

    found = secret("hush-hush")
    assert "secret" in found.splitlines()[-1]
    assert "hush-hush" not in found


def test_a_process_that_was_stopped_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    script = tmp_path / "watched.py"
    script.write_text(
        "import asyncio\n"
        "from chatserver.infra.watchdog import LoopWatch\n"
        "async def main():\n"
        "    watch = LoopWatch(blocked_s=0.2)\n"
        "    watch.start()\n"
        "    print('watching', flush=True)\n"
        "    await asyncio.get_running_loop().run_in_executor(None, input)\n"
        "    await asyncio.sleep(0.3)\n"
        "    print(watch.blocked)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate("\n", timeout=30)
    assert said.splitlines()[-1] == "0"
