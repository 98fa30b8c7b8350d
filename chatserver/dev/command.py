"""The whole of `chatserver dev` but for its options: from the data directory to the exit code."""

import asyncio
import os
import sys
from pathlib import Path

from chatserver.dev.data_directory import DataDirectory
from chatserver.dev.errors import DevError
from chatserver.dev.installation import Programs, run_installation
from chatserver.dev.reporting import ConsoleReporter, JsonReporter


def run(
    data_dir: Path,
    *,
    host: str,
    port: int,
    reset: bool,
    json: bool,
    programs: Programs | None = None,
) -> int:
    """Run until a signal comes; the exit code. What went wrong stands on stderr."""
    written = True
    try:
        with DataDirectory(data_dir).open(reset=reset) as data:
            reporter = JsonReporter(data.logs / "dev.log") if json else ConsoleReporter()
            try:
                asyncio.run(
                    run_installation(
                        data, host=host, port=port, reporter=reporter, programs=programs
                    )
                )
            finally:
                written = reporter.close()
    except DevError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    if not written:
        # Nobody reads our output, and Python would wait for that at its end.
        os._exit(0)
    return 0
