"""How long a search takes in a bot with very many passages: `python -m benchmarks.retrieval`.

The passages are sentences of a corpus (`--corpus`, a folder of .md files with `questions_df.csv`),
shuffled and joined, so that words are as common as they are in real text; without one they are made
up after Zipf. Vectors are random around 200 centres: the times hold, the order means nothing.
"""

import argparse
import asyncio
import csv
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np

from chatserver.assistant.bots.schemas import CreateBot
from chatserver.assistant.embedding.local import LocalEmbedder
from chatserver.assistant.embedding.schemas import written
from chatserver.assistant.retrieval import repository
from chatserver.assistant.retrieval.indexing import Indexer
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from tests.support.people import House
from tests.support.servers import Database, Servers

PARTS = 4
DIMENSION = 384
AT_ONCE = 250
CHARACTERS = 1780


def made_up(rng: random.Random) -> tuple[list[str], list[str]]:
    words = ["".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(3, 9))) for _ in range(30_000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    lines = [" ".join(rng.choices(words, weights, k=15)) + "." for _ in range(20_000)]
    return lines, [" ".join(rng.choices(words, weights, k=9)) + "?" for _ in range(200)]


def of_corpus(folder: Path) -> tuple[list[str], list[str]]:
    text = "\n".join(
        path.read_text() for path in sorted(folder.glob("*.md")) if path.stem != "README"
    )
    with (folder / "questions_df.csv").open(newline="") as lines:
        questions = [row["question"] for row in csv.DictReader(lines)]
    return [line for line in re.split(r"(?<=[.!?])\s+|\n+", text) if len(line) > 20], questions


def chunks(lines: list[str], count: int, rng: random.Random) -> Iterator[str]:
    for _ in range(count):
        text = ""
        while len(text) < CHARACTERS:
            text += rng.choice(lines) + " "
        yield text


async def fill(house: House, bot: Any, master: Principal, lines: list[str], count: int) -> None:
    rng = random.Random(7)
    dice = np.random.default_rng(7)
    centres = dice.normal(size=(200, DIMENSION))
    known = await house.container.documents.embedders.default()
    document = uuid7()
    await house.change(
        "insert into document (id, client_id, bot_id, kind, origin, name, title, version,"
        " indexed_version, status, chunks, parts) values (:d, :c, :b, 'file', 'local', 'big',"
        " 'Big', 1, 1, 'ready', 0, 0)",
        d=document, c=master.client_id, b=bot,
    )  # fmt: skip
    connection = await asyncpg.connect(house.address.migrator_url)
    texts = chunks(lines, count, rng)
    for start in range(0, count, AT_ONCE):
        bodies = [next(texts) for _ in range(min(AT_ONCE, count - start))]
        ids = [uuid7() for _ in bodies]
        await connection.execute(
            "insert into chunk (id, client_id, bot_id, document_id, ord, char_start, char_end,"
            " body, config, sha256, n_terms) select x.id, $1, $2, $3, 0, 0, length(x.body), x.body,"
            " 'english', '\\x00', 0 from unnest($4::uuid[], $5::text[]) as x (id, body)",
            master.client_id, bot, document, ids, bodies,
        )  # fmt: skip
        await connection.execute(
            "with f as (select x.id, t.lexeme, coalesce(array_length(t.positions, 1), 1) as tf"
            " from unnest($3::uuid[], $4::text[]) as x (id, body),"
            " unnest(to_tsvector('english', x.body)) as t), l as (select id, sum(tf) as n from f"
            " group by id)"
            " insert into chunk_term (client_id, bot_id, lexeme, chunk_id, tf, n_terms)"
            " select $1, $2, lexeme, id, tf, n from f join l using (id)",
            master.client_id, bot, ids, bodies,
        )  # fmt: skip
        vectors = centres[dice.integers(200, size=len(ids) * PARTS)] + dice.normal(
            size=(len(ids) * PARTS, DIMENSION)
        )
        await connection.execute(
            "insert into chunk_part (client_id, bot_id, model_id, chunk_id, part, char_start,"
            " char_end, sha256, v)"
            " select $1, $2, $3, x.id, x.part, 0, 1, '\\x00', x.v::halfvec"
            " from unnest($4::uuid[], $5::int[], $6::text[]) as x (id, part, v)",
            master.client_id, bot, known.id, [each for each in ids for _ in range(PARTS)],
            list(range(PARTS)) * len(ids), [written(each) for each in vectors.astype(np.float32)],
        )  # fmt: skip
    await connection.execute(
        "insert into bot_index (client_id, bot_id, model_id, n_chunks, n_terms, n_parts, configs)"
        " select $1, $2, $3, $4, (select sum(tf) from chunk_term where bot_id = $2), $5,"
        " '{english}'",
        master.client_id, bot, known.id, count, count * PARTS,
    )  # fmt: skip
    await connection.close()
    admin = await asyncpg.connect(house.address.migrator_url)
    await admin.execute("vacuum analyze chunk_term, chunk_part, chunk", timeout=900)
    await admin.close()


async def measure(
    house: House, bot: Any, master: Principal, questions: list[str]
) -> dict[str, Any]:
    retrieval = house.container.documents.retrieval
    for question in questions[:20]:
        await retrieval.search(master.client_id, [bot], question, 6)
    legs: dict[str, list[float]] = {"total": [], "embed": [], "search": [], "read": []}
    for question in questions:
        found = await retrieval.search(master.client_id, [bot], question, 6)
        for name, values in legs.items():
            values.append(found.timings[name])
    return {
        name: (
            round(statistics.median(values), 1),
            round(sorted(values)[len(values) * 95 // 100], 1),
        )
        for name, values in legs.items()
    }


async def run(database: Database, count: int, corpus: Path | None) -> None:
    rng = random.Random(7)
    lines, questions = made_up(rng) if corpus is None else of_corpus(corpus)
    with tempfile.TemporaryDirectory() as files:
        house = House(replace(database, files_dir=files))
        await house.start()
        master = await house.tenant()
        async with house.container.documents.open_bots() as bots:
            bot = (await bots.create(master, CreateBot(name="big"))).id
        began = time.monotonic()
        await fill(house, bot, master, lines, count)
        print(f"{count} chunks, {count * PARTS} parts, filled in {time.monotonic() - began:.0f} s")
        await LocalEmbedder().embed(["warm"])
        asked = rng.sample(questions, min(200, len(questions)))
        print("exact    p50, p95 in ms:", await measure(house, bot, master, asked))
        began = time.monotonic()
        built = await Indexer(database.migrator_url).build_due(least=0, bot_id=bot)
        print(f"index of {built} bot built in {time.monotonic() - began:.0f} s")
        repository.EXACT_PARTS = 0  # type: ignore[misc]  # so that small runs use the index, too
        print("indexed  p50, p95 in ms:", await measure(house, bot, master, asked))
        await house.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=40_000)
    parser.add_argument("--corpus", type=Path, default=None)
    given = parser.parse_args()
    with Servers(tcp=True) as servers:
        asyncio.run(run(servers.fresh_database(), given.chunks, given.corpus))


if __name__ == "__main__":
    main()
