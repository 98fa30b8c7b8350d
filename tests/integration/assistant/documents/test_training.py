"""Documents become passages, and passages become what searches find: through repeats and deaths."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from chatserver.assistant.bots.schemas import BotPath
from chatserver.assistant.documents.errors import DocumentNotFoundError
from chatserver.assistant.documents.schemas import CreateDocuments, DocumentPath, ListChunks
from chatserver.assistant.embedding.schemas import Known, Vectors
from chatserver.assistant.training import reembedding
from chatserver.kernel.errors import PayloadInvalidError
from tests.integration.assistant.documents.conftest import Library
from tests.support import documents
from tests.support.documents import WorkerKilled

PARAGRAPHS = [
    f"Section {number}. The {word} pump needs oil of grade {number * 7} each {word} morning. " * 12
    for number, word in enumerate(("amber", "birch", "cedar", "daisy", "elder", "fennel"))
]
MANUAL = "\n\n".join(f"# Part {number}\n\n{each}" for number, each in enumerate(PARAGRAPHS))


async def consistent(library: Library) -> None:
    """What the counts say is what there is."""
    index = await library.index()
    assert index["n_chunks"] == await library.count("chunk")
    assert index["n_parts"] == await library.count("chunk_part")
    terms = await library.house.rows(
        "select coalesce(sum(tf), 0) as n from chunk_term where bot_id = :bot", bot=library.bot_id
    )
    assert index["n_terms"] == terms[0]["n"]
    assert await library.count("staged_part") == 0


async def test_a_text_is_read_found_and_cited_by_its_place(library: Library) -> None:
    document = await library.learn("manual.md", MANUAL)
    assert (document.status, document.reason, document.indexed_version) == ("ready", None, 1)
    assert (document.media_type, document.chunks) == ("text/markdown", await library.count("chunk"))
    await consistent(library)

    found = await library.ask("Which oil does the cedar pump need?")
    best = found.chunks[0]
    assert "cedar" in best.text
    assert MANUAL[best.char_start : best.char_end] == best.text
    assert (found.legs, found.is_weak, best.document_id) == ("hybrid", False, document.id)

    async with library.parts.open_documents() as service:
        page = await service.chunks(library.master, ListChunks(document_id=document.id, size=100))
        near = ListChunks(document_id=document.id, around=page.items[1].id, neighbours=1)
        around = await service.chunks(library.master, near)
    assert "".join(each.text for each in page.items) == MANUAL
    assert [each.ord for each in around.items] == [0, 1, 2]


async def test_the_same_content_is_not_read_twice(library: Library) -> None:
    first = await library.learn("manual.md", MANUAL)
    again = await library.add("manual.md", MANUAL)
    renamed = await library.add("copy.md", MANUAL)
    assert (again.id, again.duplicate) == (first.id, True)
    assert (renamed.id, renamed.duplicate) == (first.id, True)
    assert await library.count("training_job") == 1


async def test_of_a_changed_document_only_what_changed_is_embedded(library: Library) -> None:
    first = await library.learn("manual.md", MANUAL)
    before = await library.house.rows(
        "select id, body from chunk where document_id = :id", id=first.id
    )
    library.vectors.texts.clear()

    changed = MANUAL.replace("# Part 3", "# Part three")
    second = await library.learn("manual.md", changed)

    assert (second.id, second.version, second.indexed_version) == (first.id, 2, 2)
    assert 0 < len(library.vectors.texts) < first.parts / 2
    after = await library.house.rows(
        "select id, body from chunk where document_id = :id", id=first.id
    )
    kept = {row["id"] for row in before} & {row["id"] for row in after}
    assert len(kept) >= len(before) - 2
    assert "".join(row["body"] for row in before) != "".join(row["body"] for row in after)
    await consistent(library)


async def test_whoever_takes_over_embeds_only_what_is_missing(library: Library) -> None:
    long = "\n\n".join(
        f"Paragraph {number} speaks of subject {number * number}. " * 9 for number in range(120)
    )
    document = await library.add("long.txt", long)
    library.vectors.fails_after = 64
    with pytest.raises(WorkerKilled):
        await library.read(document)
    assert (await library.get(document.id)).status == "embedding"
    assert (await library.ask("subject 49")).chunks == ()
    done = len(library.vectors.texts)
    assert done >= 64

    library.vectors.fails_after = None
    (job,) = await library.house.rows(
        "select id from training_job where document_id = :id", id=document.id
    )
    both = [library.parts.trainer.process(library.master.client_id, job["id"]) for _ in range(2)]
    await asyncio.gather(*both)  # a zombie and its successor at the same time

    ready = await library.get(document.id)
    assert ready.status == "ready"
    assert len({*library.vectors.texts} - {"dimension"}) == ready.parts
    assert await library.count("chunk") == ready.chunks
    await consistent(library)


async def test_a_reading_outside_of_a_worker_is_not_taken_for_lost(library: Library) -> None:
    """Found with `documents eval`: half a minute later its document failed as `worker_lost`."""
    document = await library.add("slow.txt", "A text that takes its time.")
    embed, seen = library.vectors.embed, []

    async def slowly(texts: Sequence[str]) -> Vectors:
        await library.house.change(
            "update training_job set created_at = created_at - interval '1 hour'"
            " where document_id = :d",
            d=document.id,
        )
        await library.parts.settler.settle()
        seen.append((await library.get(document.id)).status)
        return await embed(texts)

    library.vectors.embed = slowly  # type: ignore[method-assign]  # as slow as a large document
    assert (await library.read(document)).status == "ready"
    assert seen
    assert "failed" not in seen
    (job,) = await library.house.rows(
        "select state from job where client_id = :c and kind = 'documents.process'",
        c=library.master.client_id,
    )
    assert job["state"] == "done"


async def test_a_zombie_does_not_open_a_reading_again_that_was_closed(library: Library) -> None:
    document = await library.add("long.txt", MANUAL)
    embed = library.vectors.embed

    async def late(texts: Sequence[str]) -> Vectors:
        """Sleep until the reading was given up, and go on as if nothing had been."""
        vectors = await embed(texts)
        if "section 1" in str(texts).lower():
            (job,) = await library.house.rows(
                "select id from training_job where document_id = :d", d=document.id
            )
            await library.parts.trainer.give_up(library.master.client_id, job["id"], "worker_lost")
        return vectors

    library.vectors.embed = late  # type: ignore[method-assign]  # one that wakes up too late
    lost = await library.read(document)
    assert (lost.status, lost.reason) == ("failed", "worker_lost")
    (job,) = await library.house.rows(
        "select status, reason from training_job where document_id = :d", d=document.id
    )
    assert job == {"status": "failed", "reason": "worker_lost"}
    library.vectors.embed = embed  # type: ignore[method-assign]
    async with library.parts.open_documents() as service:
        await service.process(library.master, DocumentPath(document_id=document.id))
    assert (await library.read(document)).status == "ready"
    await consistent(library)


async def test_a_search_sees_the_old_passages_until_the_new_ones_are_there(
    library: Library,
) -> None:
    await library.learn("price.txt", "The kettle costs forty euros.")
    newer = await library.add("price.txt", "The kettle costs fifty euros now.")
    assert "forty" in (await library.ask("what does the kettle cost")).chunks[0].text
    await library.read(newer)
    (only,) = (await library.ask("what does the kettle cost")).chunks
    assert "fifty" in only.text


async def test_a_newer_upload_overtakes_one_that_is_being_read(library: Library) -> None:
    old = await library.add("price.txt", "The kettle costs forty euros.")
    jobs = await library.house.rows("select id from training_job where document_id = :d", d=old.id)
    await library.learn("price.txt", "The kettle costs fifty euros now.")
    await library.parts.trainer.process(library.master.client_id, jobs[0]["id"])
    (only,) = (await library.ask("kettle")).chunks
    assert "fifty" in only.text
    await consistent(library)


async def test_what_cannot_be_read_fails_with_its_reason_and_may_be_tried_again(
    library: Library,
) -> None:
    scan = await library.learn("scan.pdf", documents.pdf("", "", ""))
    assert (scan.status, scan.reason) == ("failed", "needs_ocr")
    again = await library.add("scan.pdf", documents.pdf("", "", ""))
    assert (again.id, again.version, again.duplicate) == (scan.id, 2, None)
    async with library.parts.open_documents() as service:
        queued = await service.process(library.master, DocumentPath(document_id=scan.id))
    assert (queued.status, queued.version) == ("queued", 3)


async def test_a_deleted_document_is_found_by_nothing_and_leaves_nothing(library: Library) -> None:
    document = await library.learn("manual.md", MANUAL)
    kept = await library.learn("other.txt", "The kettle is blue.")
    (row,) = await library.house.rows(
        "select storage_key from document where id = :id", id=document.id
    )
    async with library.parts.open_documents() as service:
        await service.delete(library.master, DocumentPath(document_id=document.id))
    texts = [each.document_id for each in (await library.ask("cedar pump oil")).chunks]
    assert document.id not in texts
    with pytest.raises(DocumentNotFoundError):
        await library.get(document.id)

    await library.parts.purger.purge_document(library.master.client_id, document.id)
    assert await library.count("chunk") == kept.chunks
    assert await library.parts.store.stat(row["storage_key"]) is None
    await consistent(library)


async def test_a_deleted_bot_takes_everything_with_it(library: Library) -> None:
    await library.learn("manual.md", MANUAL)
    ann = await library.house.person(library.master, "ann")
    room = await library.house.room(ann)
    async with library.parts.open_bots() as bots:
        found = await bots.usable(ann, library.bot_id)
        locked, _ = await bots._rooms.locked(ann, room.id, needed="owner")
        await bots.seat_in(locked, found)
    async with library.parts.open_bots() as bots:
        await bots.delete(library.master, BotPath(bot_id=library.bot_id))
    await library.parts.purger.purge_bot(library.master.client_id, library.bot_id)
    for table in ("bot", "document", "chunk", "chunk_part", "chunk_term", "room_bot", "bot_index"):
        assert await library.count(table) == 0, table
    assert await library.count("room", "id = :id and bots = 0".replace(":id", f"'{room.id}'")) == 1


async def test_one_thing_is_handed_in_at_a_time(library: Library) -> None:
    for more in ({}, {"url": "https://example.com/", "text": "x"}):
        values: dict[str, Any] = {"bot_id": library.bot_id, **more}
        with pytest.raises(PayloadInvalidError):
            await library.parts.intake.add(library.master, CreateDocuments(**values))
    for url in ("http://127.0.0.1/", "https://169.254.169.254/latest", "file:///etc/passwd"):
        command = CreateDocuments(bot_id=library.bot_id, url=url)
        with pytest.raises(PayloadInvalidError, match="url"):
            await library.parts.intake.add(library.master, command)


async def test_a_bot_is_embedded_anew_while_it_is_searched(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    await library.learn("manual.md", MANUAL)
    before = await library.ask("cedar pump oil")
    old = await library.index()
    other = documents.WordVectors()
    other.dimension = 32
    library.parts.embedders._remote["words-32", None] = other  # type: ignore[assignment]

    during: list[str] = []

    async def look() -> None:
        during.append((await library.ask("cedar pump oil")).model or "")

    client_id = library.master.client_id
    monkeypatch.setattr(reembedding, "AT_ONCE", 4)
    other.fails_after = 5
    with pytest.raises(WorkerKilled):
        await library.parts.reembedder.reembed(client_id, library.bot_id, "words-32")
    await look()
    other.fails_after = None
    assert await library.parts.reembedder.reembed(client_id, library.bot_id, "words-32") is True
    await look()
    assert await library.parts.reembedder.reembed(client_id, library.bot_id, "words-32") is False

    assert during == ["words", "words-32"]
    index = await library.index()
    assert index["model_id"] != old["model_id"]
    rows = await library.house.rows(
        "select distinct model_id, vector_dims(v::vector) as d from chunk_part where bot_id = :b",
        b=library.bot_id,
    )
    assert rows == [{"model_id": index["model_id"], "d": 32}]
    after = await library.ask("cedar pump oil")
    assert before.chunks[0].chunk_id == after.chunks[0].chunk_id
    await consistent(library)
    # What is new is embedded by the bot's own model, not by the one of the settings.
    await library.learn("new.txt", "A new paragraph about walnut pumps.")
    assert isinstance(await library.parts.embedders.known(index["model_id"]), Known)
    await consistent(library)
