"""`chatserver documents …`: what bots know, straight on the database and the store."""

import asyncio
import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from chatserver.assistant.bots.schemas import BotPath, CreateBot, ListBots
from chatserver.assistant.documents.schemas import (
    CreateDocuments,
    DocumentOut,
    DocumentPath,
    ListDocuments,
)
from chatserver.assistant.retrieval import evaluation
from chatserver.bootstrap import Container
from chatserver.cli.clients import Json, with_container
from chatserver.kernel.principal import Caller, Principal
from chatserver.kernel.wire import UploadedFile

group = typer.Typer(help="Documents of bots.", no_args_is_help=True)

POLL_S: Final = 0.5
PAGE: Final = 100
LARGEST: Final = 50 * 10**6
ENDED: Final = frozenset({"ready", "failed"})
ClientName = Annotated[str, typer.Option("--client", help="The client's slug or id.")]
BotName = Annotated[str, typer.Option("--bot", help="The bot's name or id.")]
AnyBot = Annotated[str | None, typer.Option("--bot", help="The bot's name or id; else all bots.")]
Here = Annotated[
    bool, typer.Option("--here", help="Read in this process, without waiting for a worker.")
]


@group.callback()
def documents() -> None:
    """Documents of bots."""


@group.command()
def upload(
    directory: Annotated[Path, typer.Argument(exists=True, help="A directory, or one file.")],
    client: ClientName,
    bot: BotName,
    wait: Annotated[bool, typer.Option(help="Wait until all are read.")] = True,
    here: Here = False,
    json: Json = False,
) -> None:
    """Upload everything below a directory; what is known already is not read again."""

    async def work(container: Container) -> dict[str, Any]:
        principal = await _master(container, client)
        bot_id = await _bot(container, principal, bot)
        paths = [directory] if directory.is_file() else _files(directory)
        root = directory.parent if directory.is_file() else directory
        added: list[DocumentOut] = []
        skipped: list[dict[str, str]] = []
        with _bar("Uploading", len(paths), quiet=json) as step:
            for path in paths:
                name = path.relative_to(root).as_posix()
                file = await asyncio.to_thread(_uploaded, path, name)
                if file is None:
                    skipped.append({"name": name, "reason": "too_large"})
                else:
                    command = CreateDocuments(bot_id=bot_id).with_files((file,))
                    added += (await container.documents.intake.add(principal, command)).items
                step(1)
        ids = [each.id for each in added]
        done = await _read(container, principal, ids, here=here, quiet=json) if wait else added
        return _summary(done) | {"skipped": skipped}

    _say(with_container(work), json=json)


@group.command()
def process(
    client: ClientName,
    bot: AnyBot = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    here: Here = False,
    json: Json = False,
) -> None:
    """Read documents again: all of a client's or of a bot's, or those that failed."""

    async def work(container: Container) -> dict[str, Any]:
        principal = await _master(container, client)
        found = await _all(container, principal, bot, status="failed" if failed else None)
        for each in found:
            async with container.documents.open_documents() as service:
                await service.process(principal, DocumentPath(document_id=each.id))
        ids = [each.id for each in found]
        return _summary(await _read(container, principal, ids, here=here, quiet=json))

    _say(with_container(work), json=json)


@group.command("list")
def list_documents(client: ClientName, bot: AnyBot = None, json: Json = False) -> None:
    """List documents, the newest first."""

    async def work(container: Container) -> list[DocumentOut]:
        principal = await _master(container, client)
        return await _all(container, principal, bot, status=None)

    found = with_container(work)
    if json:
        items = [each.model_dump(mode="json") for each in found]
        typer.echo(orjson.dumps({"items": items}).decode())
        return
    for each in found:
        state = each.status if each.reason is None else f"{each.status}: {each.reason}"
        typer.echo(f"{each.id}  {state:<20}  {each.chunks:>6} passages  {each.title}")


@group.command()
def reembed(
    client: ClientName,
    bot: AnyBot = None,
    model: Annotated[
        str | None, typer.Option(help="A model's name; else EMBEDDING_MODEL's.")
    ] = None,
    json: Json = False,
) -> None:
    """Make the vectors of bots anew by another model; searches use the old one meanwhile."""

    async def work(container: Container) -> dict[str, Any]:
        principal = await _master(container, client)
        known = await container.documents.embedders.default(model)
        reembedder = container.documents.reembedder
        waiting = await reembedder.waiting(principal.client_id, known)
        if bot is not None:
            bot_id = await _bot(container, principal, bot)
            waiting = [each for each in waiting if each[0] == bot_id]
        with _bar("Embedding", sum(parts for _, parts in waiting), quiet=json) as step:
            for bot_id, _ in waiting:
                await reembedder.reembed(principal.client_id, bot_id, model, tell=step)
        return {"model": known.name, "dimension": known.dimension, "bots": len(waiting)}

    _say(with_container(work), json=json)


@group.command("eval")
def evaluate(
    questions: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A CSV.")],
    client: ClientName,
    corpus: Annotated[
        Path | None, typer.Option(help="Where CORPUS_ID.* lie; else beside the questions.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the bot, for the next time.")] = False,
    least: Annotated[
        float | None, typer.Option(help="Exit 1 when recall@5 is below, in percent.")
    ] = None,
    json: Json = False,
) -> None:
    """Compute recall on a question file: how much of what answers stands in the first passages.

    The file is a CSV with `question`, `references` (a JSON list of `start_index`, `end_index`, in
    code points of the document) and `corpus_id` (the document's name without its ending). All
    documents are read into one bot, and each question is asked over all of them.
    """

    async def work(container: Container) -> dict[str, Any]:
        principal = await _master(container, client)
        asked = evaluation.read_questions(questions)
        folder = corpus or questions.parent
        names = sorted({each.document for each in asked})
        bot_id = await _evaluated(container, principal, folder, names, quiet=json)
        try:
            return await _evaluate(container, principal, bot_id, asked, quiet=json)
        finally:
            if not keep:
                async with container.documents.open_bots() as bots:
                    await bots.delete(principal, BotPath(bot_id=bot_id))
                await container.documents.purger.purge_bot(principal.client_id, bot_id)

    try:
        figures = with_container(work)
    except evaluation.QuestionFileError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    _say(figures, json=json)
    if least is not None and figures["recall_at_5"] < least:
        raise typer.Exit(1)


async def _evaluated(
    container: Container, principal: Principal, folder: Path, names: Sequence[str], *, quiet: bool
) -> UUID:
    """Give a bot that has read these documents; one that was kept is used again."""
    parts = container.documents
    files: list[UploadedFile] = []
    for name in names:
        path = await asyncio.to_thread(_named, folder, name)
        if path is None:
            raise evaluation.QuestionFileError(f"There is no {name}.* in {folder}.")
        file = await asyncio.to_thread(_uploaded, path, path.name)
        if file is None:
            raise evaluation.QuestionFileError(f"{path} is larger than 50 MB.")
        files.append(file)
    title = "eval " + hashlib.sha256(b"".join(each.sha256 for each in files)).hexdigest()[:16]
    async with parts.open_bots() as bots:
        known = (await bots.list_bots(principal, ListBots(size=PAGE))).items
        bot_id = next((each.id for each in known if each.name == title), None)
        if bot_id is None:
            bot_id = (await bots.create(principal, CreateBot(name=title))).id
    ids: list[UUID] = []
    for file in files:
        command = CreateDocuments(bot_id=bot_id).with_files((file,))
        ids += [each.id for each in (await parts.intake.add(principal, command)).items]
    for each in await _read(container, principal, ids, here=True, quiet=quiet):
        if each.status != "ready":
            raise evaluation.QuestionFileError(f"{each.name} could not be read: {each.reason}.")
    return bot_id


async def _evaluate(
    container: Container,
    principal: Principal,
    bot_id: UUID,
    asked: Sequence[evaluation.Question],
    *,
    quiet: bool,
) -> dict[str, Any]:
    retrieval = container.documents.retrieval
    found_in: dict[UUID, str] = {
        each.id: Path(each.name).stem
        for each in await _all(container, principal, str(bot_id), None)
    }
    recalls: dict[int, list[float]] = {3: [], 5: [], 10: []}
    precisions: list[float] = []
    ranks: list[float] = []
    timings: list[float] = []
    weak = 0
    with _bar("Asking", len(asked), quiet=quiet) as step:
        for question in asked:
            began = time.monotonic()
            given = await retrieval.search(principal.client_id, [bot_id], question.text, 10)
            timings.append((time.monotonic() - began) * 1000)
            weak += given.is_weak
            found = [
                (found_in[each.document_id], each.char_start, each.char_end)
                for each in given.chunks
            ]
            for top, values in recalls.items():
                values.append(evaluation.recall(question, found[:top]))
            precisions.append(evaluation.precision(question, found[:5]))
            ranks.append(evaluation.reciprocal_rank(question, found))
            step(1)
    timings.sort()
    return {
        "questions": len(asked),
        **{f"recall_at_{top}": _percent(values) for top, values in recalls.items()},
        "precision_at_5": _percent(precisions),
        "mrr_at_10": _percent(ranks),
        "weak": weak,
        "p50_ms": round(timings[len(timings) // 2], 1),
        "p95_ms": round(timings[len(timings) * 95 // 100], 1),
    }


def _percent(values: Sequence[float]) -> float:
    return round(100 * statistics.fmean(values), 2)


async def _master(container: Container, client: str) -> Principal:
    async with container.open_clients() as clients:
        found = await clients.find(client)
    return Principal(caller=Caller.MASTER, client_id=found.id, client_slug=found.slug)


async def _bot(container: Container, principal: Principal, named: str) -> UUID:
    async with container.documents.open_bots() as bots:
        page = 1
        while True:
            found = await bots.list_bots(principal, ListBots(page=page, size=PAGE))
            for each in found.items:
                if named in {each.name, str(each.id)}:
                    return each.id
            if len(found.items) < PAGE:
                raise typer.BadParameter(f"{principal.client_slug} has no bot {named}.")
            page += 1


async def _all(
    container: Container, principal: Principal, bot: str | None, status: str | None
) -> list[DocumentOut]:
    bot_id = None if bot is None else await _bot(container, principal, bot)
    items: list[DocumentOut] = []
    page = 1
    while True:
        command = ListDocuments.model_validate(
            {"bot_id": None if bot_id is None else str(bot_id), "status": status}
            | {"page": page, "size": PAGE}
        )
        async with container.documents.open_documents() as service:
            found = await service.list(principal, command)
        items += found.items
        if len(found.items) < PAGE:
            return items
        page += 1


async def _read(
    container: Container,
    principal: Principal,
    ids: Sequence[UUID],
    *,
    here: bool,
    quiet: bool,
) -> list[DocumentOut]:
    """Wait until documents are read, by a worker or in this process; give how that ended."""
    ended: dict[UUID, DocumentOut] = {}
    with _bar("Reading", len(ids), quiet=quiet) as step:
        for each in ids if here else ():
            await container.documents.read_here(principal.client_id, each)
        while len(ended) < len(set(ids)):
            for each in set(ids) - ended.keys():
                async with container.documents.open_documents() as service:
                    document = await service.get(principal, DocumentPath(document_id=each))
                if document.status in ENDED:
                    ended[each] = document
                    step(1)
            if len(ended) < len(set(ids)):
                await asyncio.sleep(POLL_S)
    return list(ended.values())


def _named(folder: Path, name: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"{name}.*"))), None)


def _files(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.parts[-3:])
    )


def _uploaded(path: Path, name: str) -> UploadedFile | None:
    if path.stat().st_size > LARGEST:
        return None
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    return UploadedFile(name, path.stat().st_size, digest.digest(), path)


def _summary(found: Sequence[DocumentOut]) -> dict[str, Any]:
    failed = [each for each in found if each.status == "failed"]
    return {
        "documents": len(found),
        "ready": sum(each.status == "ready" for each in found),
        "passages": sum(each.chunks for each in found),
        "failed": [{"name": each.name, "reason": each.reason} for each in failed],
    }


@contextmanager
def _bar(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show how far something is, on standard error."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task: TaskID = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)


def _say(members: dict[str, Any], *, json: bool) -> None:
    if json:
        typer.echo(orjson.dumps(members).decode())
        return
    for name, value in members.items():
        if isinstance(value, list):
            for each in value:
                typer.echo(f"{name}: {' '.join(str(part) for part in each.values())}")
        else:
            typer.echo(f"{name}: {value}")
