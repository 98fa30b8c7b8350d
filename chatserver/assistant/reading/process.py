"""Starts a process that reads one document, and takes what it says, within bounds."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chatserver.assistant.reading.confinement import Bounds
from chatserver.assistant.reading.shapes import Refused

# What all passages of the longest text take as JSON, with room to spare.
MOST_OUTPUT: Final = 128 * 2**20
LONGEST_LINE: Final = 2**20
_ROOT: Final = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class ReadPart:
    """An embedded passage: its span inside the chunk's text, and what is embedded above it."""

    start: int
    end: int
    header: str


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """A passage as the reading process gives it; places count in the text as it was read."""

    start: int
    end: int
    pages: tuple[int, int] | None
    heading: str
    text: str
    parts: tuple[ReadPart, ...]

    def embedded(self, part: ReadPart) -> str:
        return embedded(part.header, self.text[part.start : part.end])


@dataclass(slots=True)
class ReadDocument:
    """A whole document, cut into passages. `config` is its text search configuration."""

    title: str
    media_type: str
    pages: int | None
    characters: int
    config: str
    chunks: list[ReadChunk] = field(default_factory=list)


def embedded(header: str, text: str) -> str:
    """Give what is embedded of a passage."""
    return f"{header}\n{text}" if header else text


async def read_document(
    content: AsyncIterable[bytes], *, name: str, title: str | None, bounds: Bounds | None = None
) -> ReadDocument:
    """Read a document in a process of its own.

    Raises:
        Refused: it gives no text, for a reason; `timeout` and `too_large` when it went too far.
    """
    bounds = bounds or Bounds()
    asked = {"name": name, "title": title, "memory": bounds.memory, "cpu_s": bounds.cpu_s}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chatserver.assistant.reading",
        json.dumps(asked),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # No secret of ours is in its environment.
        env={"PYTHONPATH": str(_ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        cwd="/",
        limit=LONGEST_LINE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(bounds.wall_s):
            found, _ = await asyncio.gather(_listen(process), _feed(process, content))
            await process.wait()
    except TimeoutError as error:
        raise Refused("timeout") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if found is None:
        # Killed by a limit: its time, or memory that a library could not do without.
        is_slow = process.returncode in {-signal.SIGXCPU, -signal.SIGKILL}
        raise Refused("timeout" if is_slow else "unsupported")
    return found


async def _feed(process: asyncio.subprocess.Process, content: AsyncIterable[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    try:
        async for piece in content:
            process.stdin.write(piece)
            await process.stdin.drain()
        process.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        return  # it has ended; what it said tells why


async def _listen(process: asyncio.subprocess.Process) -> ReadDocument | None:
    assert process.stdout is not None  # noqa: S101 - it was asked for
    found: ReadDocument | None = None
    taken = 0
    try:
        async for line in process.stdout:
            taken += len(line)
            if taken > MOST_OUTPUT:
                raise Refused("too_large")
            said: dict[str, Any] = json.loads(line)
            event = said.pop("event")
            if event == "refused":
                raise Refused(said["reason"])
            if event == "read":
                found = ReadDocument(**said)
            elif event == "chunk" and found is not None:
                found.chunks.append(_chunk(said))
            elif event == "end":
                return found
    except ValueError as error:
        raise Refused("unsupported") from error
    return None


def _chunk(said: dict[str, Any]) -> ReadChunk:
    return ReadChunk(
        start=said["start"],
        end=said["end"],
        pages=None if said["pages"] is None else (said["pages"][0], said["pages"][1]),
        heading=said["heading"],
        text=said["text"],
        parts=tuple(ReadPart(*part) for part in said["parts"]),
    )
