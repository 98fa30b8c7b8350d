"""Searches: of one's own bots alone, by two legs, as brute force would find."""

import secrets
from uuid import UUID

import numpy as np
import pytest

from chatserver.assistant.bots.errors import BotNotFoundError
from chatserver.assistant.bots.schemas import Access, BotPath, CreateBot
from chatserver.assistant.embedding.schemas import written
from chatserver.assistant.retrieval import repository
from chatserver.assistant.retrieval.errors import RetrievalNotFoundError
from chatserver.assistant.retrieval.indexing import Indexer
from chatserver.assistant.retrieval.repository import Standing, statement
from tests.integration.assistant.documents.conftest import Library, furnish
from tests.support.documents import WordVectors

FACTS = [
    "The kettle boils a litre of water in two minutes.",
    "Returns are accepted within thirty days of the purchase.",
    "Parcels to Norway take five working days.",
    "The office in Lisbon opens at nine in the morning.",
    "Our oldest customer has been with us since 1987.",
]


async def test_words_and_meaning_find_and_weak_questions_say_so(library: Library) -> None:
    for number, fact in enumerate(FACTS):
        await library.learn(f"{number}.txt", fact)
    assert "Norway" in (await library.ask("parcels to norway")).chunks[0].text
    assert (await library.ask("zzz qqq xxyyzz")).is_weak is True
    stop_words = await library.ask("who is the of and")
    assert all(0 <= each.score <= 1 for each in stop_words.chunks)
    for odd in ("\0", "'; drop table chunk; --", "a & | ! <-> b:*", "\u202e", "x" * 5000, "?"):
        await library.ask(odd)


async def test_few_documents_are_given_as_a_whole(library: Library) -> None:
    for number, fact in enumerate(FACTS):
        await library.learn(f"{number}.txt", fact)
    question = "zzz qqq xxyyzz"
    assert (await library.ask(question, 2)).is_weak
    whole = await library.ask(question, 2, whole_tokens=8000, keep=True)
    assert sorted(each.text for each in whole.chunks) == sorted(FACTS)
    assert not whole.is_weak
    best = await library.ask("parcels to norway", 1, whole_tokens=8000)
    assert "Norway" in best.chunks[0].text
    assert len((await library.ask("parcels to norway", 2, whole_tokens=600)).chunks) == 2
    replay = await library.parts.retrieval.replay(
        library.master.client_id, library.bot_id, whole.retrieval_id or library.bot_id
    )
    assert replay.same


async def test_the_exact_path_finds_what_brute_force_finds(library: Library) -> None:
    texts = [f"note {secrets.token_hex(3)} about {secrets.token_hex(3)}" for _ in range(8)]
    for number, each in enumerate(texts):
        await library.learn(f"{number}.txt", each)
    (question,) = await library.vectors.embed([texts[5]])
    best = np.argsort(-(await library.vectors.embed(texts)) @ question)[:5]
    found = await library.ask(texts[5], 10, weight=1.0)
    assert {each.text for each in found.chunks} >= {texts[place] for place in best[:3]}
    assert found.chunks[0].cosine == pytest.approx(1, abs=1e-3)


async def test_frequent_words_rank_what_rare_ones_found(library: Library) -> None:
    parts = [f"# Part {n}\n\n" + f"The pump number{n} needs grease{n}. " * 60 for n in range(60)]
    await library.learn("manual.md", "\n\n".join(parts))
    assert (await library.index())["n_chunks"] > 50
    library.parts.embedders._remote.clear()
    rare = (await library.ask("number7 grease7")).chunks
    both = (await library.ask("pump number7 grease7")).chunks
    assert {each.chunk_id for each in both} == {each.chunk_id for each in rare}
    assert all("number7" in each.text for each in both)
    # What the frequent word adds is little, but it is there.
    assert rare[0].bm25 < both[0].bm25 < rare[0].bm25 + 3
    # Where no word is rare, or only one, all of them choose.
    assert len((await library.ask("pump", 20)).chunks) == 20
    assert "grease9" in (await library.ask("pump grease9")).chunks[0].text


async def test_without_an_embedder_words_must_do(library: Library) -> None:
    await library.learn("0.txt", FACTS[0])
    library.parts.embedders._remote.clear()  # whoever asks now asks a closed port
    found = await library.ask("kettle water")
    assert (found.legs, found.model) == ("lexical", None)
    assert "kettle" in found.chunks[0].text


async def test_nothing_of_another_client_or_bot_is_ever_found(library: Library) -> None:
    canary = f"canary {secrets.token_hex(8)}"
    theirs = await furnish(library.house, library.directory, WordVectors())
    secret = await theirs.learn("secret.txt", f"The password is {canary}.")
    async with library.parts.open_bots() as bots:
        second = await bots.create(library.master, CreateBot(name="second"))
    await library.learn("other.txt", f"Of the second bot: {canary}.", bot_id=second.id)
    await library.learn("0.txt", FACTS[0])

    for question in (canary, "password", "The password is"):
        found = await library.ask(question, 50, keep=True)
        assert canary not in repr(found.chunks)
    # Their bot, asked with our client: as if it weren't there.
    foreign = await library.parts.retrieval.search(
        library.master.client_id, [theirs.bot_id], canary, 50
    )
    assert foreign.chunks == ()
    with pytest.raises(BotNotFoundError):
        async with library.parts.open_bots() as bots:
            await bots.usable(library.master, theirs.bot_id)
    assert await library.parts.chunks_exist(library.master.client_id, []) is True
    (row,) = await library.house.rows("select id from chunk where document_id = :d", d=secret.id)
    assert await library.parts.chunks_exist(library.master.client_id, [row["id"]]) is False
    assert canary not in repr(await library.house.rows("select candidates::text from retrieval"))


async def test_two_bots_are_searched_as_one(library: Library) -> None:
    async with library.parts.open_bots() as bots:
        second = await bots.create(library.master, CreateBot(name="second"))
    await library.learn("0.txt", FACTS[0])
    await library.learn("0.txt", FACTS[2], bot_id=second.id)
    await library.learn("same.txt", FACTS[0], bot_id=second.id)
    found = await library.parts.retrieval.search(
        library.master.client_id, [library.bot_id, second.id], "kettle parcels norway water", 10
    )
    assert {each.text for each in found.chunks} == {FACTS[0], FACTS[2]}
    assert [each.n for each in found.chunks] == [1, 2]


async def test_a_receipt_shows_what_was_weighed_and_can_be_replayed(library: Library) -> None:
    for number, fact in enumerate(FACTS):
        await library.learn(f"{number}.txt", fact)
    found = await library.ask("kettle water", 2, keep=True)
    assert found.retrieval_id is not None
    client_id, retrieval = library.master.client_id, library.parts.retrieval

    receipt = await retrieval.receipt(client_id, library.bot_id, found.retrieval_id)
    chosen = [each.chunk_id for each in receipt.candidates if each.chosen]
    assert chosen == [each.chunk_id for each in found.chunks]
    assert len(receipt.candidates) > len(chosen)
    again = await retrieval.replay(client_id, library.bot_id, found.retrieval_id)
    assert (again.same, again.missing, again.added) == (True, [], [])

    await library.learn("new.txt", "Kettle water kettle water.")
    changed = await retrieval.replay(client_id, library.bot_id, found.retrieval_id)
    assert (changed.same, len(changed.added)) == (False, 1)
    with pytest.raises(RetrievalNotFoundError):
        await retrieval.receipt(UUID(int=1), library.bot_id, found.retrieval_id)


async def test_only_those_whom_a_bot_is_for_may_use_it(library: Library) -> None:
    ann = await library.house.person(library.master, "ann")
    bob = await library.house.person(library.master, "bob")
    eve = await library.house.person(library.master, "eve")
    access = Access(mode="listed", user_ids=["ann"], editors=["bob"])
    async with library.parts.open_bots() as bots:
        made = await bots.create(library.master, CreateBot(name="listed", access=access))
        assert (await bots.get(library.master, _path(made.id))).access == access
        assert (await bots.get(ann, _path(made.id))).access is None
        assert (await bots.get(bob, _path(made.id))).access == access
        assert (await bots.editable(bob, made.id)).id == made.id
    for person, ask in ((eve, "usable"), (ann, "editable"), (eve, "editable")):
        with pytest.raises(BotNotFoundError):
            async with library.parts.open_bots() as bots:
                await getattr(bots, ask)(person, made.id)
    room = await library.house.room(ann, "bob", "eve")
    pair = await library.house.room(ann, "bob")
    async with library.parts.open_bots() as bots:
        bot = await bots.usable(ann, made.id)
        assert await bots.usable_in_room(bot, room.id) is False
        assert await bots.usable_in_room(bot, pair.id) is True


def _path(bot_id: UUID) -> BotPath:
    return BotPath(bot_id=bot_id)


async def plan_of(library: Library, standing: Standing) -> str:
    (vector,) = await library.vectors.embed(["kettle"])
    pool = library.parts.searches._pool
    async with pool.acquire() as connection, connection.transaction():
        # Of a table with a row the planner would scan whatever indexes there are.
        for setting in ("enable_seqscan", "enable_sort"):
            await connection.execute(f"set local {setting} = off")
        rows = await connection.fetch(
            "explain " + statement(standing),
            library.master.client_id,
            standing.bot_id,
            "kettle",
            ["english"],
            written(vector),
            standing.model_id,
        )
    return "\n".join(row[0] for row in rows)


async def test_small_bots_are_scanned_and_large_ones_use_an_index_of_their_own(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both plans, on connections that force custom ones: a generic plan knows no partial index."""
    await library.learn("0.txt", FACTS[0])
    index = await library.index()
    migrator = library.house.address.migrator_url
    (standing,) = await library.parts.searches.standings(library.master.client_id, [library.bot_id])
    assert standing.is_exact
    exact = await plan_of(library, standing)
    assert "hnsw" not in exact

    monkeypatch.setattr(repository, "EXACT_PARTS", 0)
    await Indexer(migrator).build_due(least=0, bot_id=library.bot_id)
    (standing,) = await library.parts.searches.standings(library.master.client_id, [library.bot_id])
    assert (standing.has_index, standing.is_exact) == (True, False)
    plan = await plan_of(library, standing)
    assert f"hnsw_{library.bot_id.hex}_{index['model_id']}" in plan, plan
    assert (await library.ask("kettle")).chunks[0].text == FACTS[0]
