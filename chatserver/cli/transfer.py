"""`chatserver export` and `chatserver import`: a client's conversations as lines of JSON."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from chatserver.bootstrap import Container
from chatserver.cli.clients import Json, say, with_container
from chatserver.infra.staging import Staging
from chatserver.transfer.policies import LONGEST_LINE
from chatserver.wiring.transfer import open_export, open_import

Client = Annotated[str, typer.Argument(help="The client's slug or id.")]
STREAM = Path("-")


def export(
    client: Client,
    file: Annotated[Path, typer.Argument(help="Where to write; - for standard output.")] = STREAM,
    files: Annotated[bool, typer.Option("--files", help="Add the contents of files.")] = False,
    json: Json = False,
) -> None:
    """Write a client's users, rooms, members and messages as NDJSON."""

    async def work(container: Container) -> dict[str, Any]:
        async with container.open_clients() as clients:
            found = await clients.find(client)
        exported = open_export(container, found.id, files=container.files if files else None)
        lines = 0
        with _target(file) as out, bar() as progress:
            shown = progress("facts", await exported.total())
            async for line in exported.lines(found.slug):
                out.write(line)
                lines += 1
                if line.startswith((b'{"type":"message"', b'{"type":"event"')):
                    shown(1)
        return {"lines": lines}

    done = with_container(work)
    if json and file != STREAM:
        say(done, json=True)
    elif file != STREAM:
        typer.echo(f"{done['lines']} lines are in {file}.")


def import_(
    client: Client,
    file: Annotated[Path, typer.Argument(help="What to read; - for standard input.")] = STREAM,
    json: Json = False,
) -> None:
    """Take users, rooms, members and messages in, as `export` or another system wrote them.

    Ids, places and times are kept. What is there already is passed by: an import that was cut off
    is simply begun again. Nothing is announced to anybody.
    """

    async def work(container: Container) -> dict[str, Any]:
        async with container.open_clients() as clients:
            found = await clients.find(client)
        taken = open_import(container, found.id, files=container.files)
        with Staging() as staging, bar() as progress:
            with _source(file) as given:
                size = None if file == STREAM else file.stat().st_size
                lines = taken.stage(staging, _lines(given), progress("bytes read", size))
            counted = await taken.apply(staging, progress("lines stored", lines))
        return counted.model_dump()

    done = with_container(work)
    if json:
        say(done, json=True)
    else:
        typer.echo(", ".join(f"{name} {count}" for name, count in done.items()))


def _lines(given: BinaryIO) -> Iterator[bytes]:
    # A line without an end must not become all of memory; the importer refuses what is cut here.
    while line := given.readline(LONGEST_LINE + 2):
        yield line


@contextmanager
def _source(file: Path) -> Iterator[BinaryIO]:
    if file == STREAM:
        yield sys.stdin.buffer
        return
    try:
        given = file.open("rb")
    except OSError as error:
        typer.echo(f"{file} can't be read: {error.strerror}.", err=True)
        raise typer.Exit(1) from error
    with given:
        yield given


@contextmanager
def _target(file: Path) -> Iterator[BinaryIO]:
    """Write beside, then rename: a file that is there is a whole one."""
    if file == STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = file.with_name(f"{file.name}.part")
    try:
        with beside.open("wb") as out:
            yield out
        beside.replace(file)
    except OSError as error:
        typer.echo(f"{file} can't be written: {error.strerror}.", err=True)
        raise typer.Exit(1) from error


@contextmanager
def bar() -> Iterator[Callable[[str, int | None], Callable[[int], None]]]:
    """Show how far several steps are: on standard error, and only where somebody looks."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:

        def begin(what: str, total: int | None) -> Callable[[int], None]:
            task = progress.add_task(what, total=total)
            return lambda more: progress.advance(task, more)

        yield begin
