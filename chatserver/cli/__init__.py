"""The one console script. Each command lives in the file of its noun."""

from chatserver.cli.program import main

__all__ = ["main"]
