"""Vectors from an endpoint, files in S3: over HTTP, as in an installation."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.assistant.documents.schemas import DocumentPath
from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.training.schemas import JobPath, ReembedBot, TrainingJobOut
from tests.integration.assistant.documents.conftest import Library, furnish
from tests.support.documents import WordVectors
from tests.support.embedding_server import EmbeddingServer
from tests.support.object_stores import ACCESS, bucket_at, s3_server
from tests.support.people import House
from tests.support.servers import Database

TEXT = "The cedar pump needs oil of grade seven each morning. " * 30


@pytest.fixture
async def endpoint() -> AsyncIterator[EmbeddingServer]:
    async with EmbeddingServer() as server:
        yield server


async def job_of(library: Library, job: TrainingJobOut) -> TrainingJobOut:
    async with library.parts.open_training() as training:
        return await training.get(library.master, JobPath(job_id=job.id))


async def test_a_bot_goes_over_to_an_endpoints_model_while_it_is_searched(
    documents_database: Database, library: Library, endpoint: EmbeddingServer
) -> None:
    await library.learn("manual.txt", TEXT)
    before = await library.ask("cedar pump")
    async with library.parts.open_training() as training:
        job = await training.reembed(library.master, ReembedBot(bot_id=library.bot_id))
        again = await training.reembed(library.master, ReembedBot(bot_id=library.bot_id))
    assert (job.id, job.kind, job.source_id) == (again.id, "reembed", None)

    # The server is set to another model, and begun anew.
    house = House(
        documents_database,
        embedding_base_url=endpoint.url,
        embedding_model="words-32",
        embedding_api_key="sk-embed",
    )
    await house.start()
    parts = house.container.documents
    client_id = library.master.client_id
    try:
        # Away for now: what there is stays, and the job is tried again.
        endpoint.failures = [401]
        with pytest.raises(EmbedderAwayError):
            await parts.reembedder.process(client_id, job.id)
        assert (await job_of(library, job)).status == "running"
        assert (await library.ask("cedar pump")).model == "words"
        endpoint.failures = [429, 503]
        await parts.reembedder.process(client_id, job.id)
        done = await job_of(library, job)
        assert (done.status, done.step, done.reason) == ("done", None, None)
        assert 0 < done.done == done.total == await library.count("chunk_part")
        found = await parts.retrieval.search(client_id, [library.bot_id], "cedar pump", 5)
        assert (found.model, found.legs) == ("words-32", "hybrid")
        assert [each.chunk_id for each in found.chunks] == [each.chunk_id for each in before.chunks]
        # Whoever asks later gets a job of his own; this one has nothing to do.
        async with parts.open_training() as training:
            later = await training.reembed(library.master, ReembedBot(bot_id=library.bot_id))
        assert later.id != job.id
        await parts.reembedder.process(client_id, later.id)
        assert (await job_of(library, later)).status == "done"
    finally:
        await house.close()
    assert set(endpoint.keys) == {"Bearer sk-embed"}
    assert all(len(asked["input"]) <= 64 for asked in endpoint.requests)
    assert not any("dimensions" in asked for asked in endpoint.requests)


async def test_a_job_that_no_worker_finished_is_closed(library: Library) -> None:
    await library.learn("manual.txt", TEXT)
    async with library.parts.open_training() as training:
        job = await training.reembed(library.master, ReembedBot(bot_id=library.bot_id))
    await library.house.change(
        "update training_job set created_at = created_at - interval '1 min' where id = :id",
        id=job.id,
    )
    await library.parts.settler.settle()
    assert (await job_of(library, job)).status == "queued"
    await library.house.change("delete from job where dedupe = :id", id=str(job.id))
    await library.parts.settler.settle()
    lost = await job_of(library, job)
    assert (lost.status, lost.reason) == ("failed", "worker_lost")


@pytest.mark.parametrize("shortens", [True, False])
async def test_a_model_that_gives_too_much_is_asked_to_shorten(
    documents_database: Database, endpoint: EmbeddingServer, shortens: bool
) -> None:
    endpoint.dimension, endpoint.shortens = 64, shortens
    house = House(
        documents_database,
        embedding_base_url=endpoint.url,
        embedding_model=f"long-{shortens}",
        embedding_dimension="24",
    )
    await house.start()
    embedders = house.container.documents.embedders
    try:
        if shortens:
            assert (await embedders.embed(["one", "two"])).shape == (2, 24)
            assert (await embedders.default()).dimension == 24
        else:
            with pytest.raises(EmbedderAwayError):
                await embedders.embed(["one"])
    finally:
        await house.close()


class Judge:
    """A re-ranking endpoint: what names the zebra is best. `status` and `body` make it fail."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.body: Any = None

    async def answer(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        self.asked.append(asked)
        results = [
            {"index": place, "relevance_score": 0.9 if "zebra" in text else 0.1}
            for place, text in enumerate(asked["documents"])
        ]
        said = {"results": results[::-1]} if self.body is None else self.body
        return web.json_response(said, status=self.status)


async def test_an_endpoint_orders_what_was_found_and_is_not_missed_when_it_is_away(
    documents_database: Database, tmp_path: Path
) -> None:
    judge = Judge()
    app = web.Application()
    app.router.add_post("/v1/rerank", judge.answer)
    async with TestServer(app) as server:
        house = House(
            documents_database,
            embedding_base_url="http://127.0.0.1:1",
            embedding_model="words",
            rerank_base_url=str(server.make_url("/v1")),
            rerank_model="judge-1",
        )
        await house.start()
        try:
            library = await furnish(house, tmp_path, WordVectors())
            for number, words in enumerate(("oil oil oil", "pump and oil", "oil of the zebra")):
                await library.learn(f"{number}.txt", f"About {words} in the morning.")
            best = (await library.ask("oil pump", 1)).chunks[0]
            assert ("zebra" in best.text, best.n, best.score) == (True, 1, 0.9)
            assert (judge.asked[0]["model"], judge.asked[0]["query"]) == ("judge-1", "oil pump")
            assert len(judge.asked[0]["documents"]) == 3
            for status, body in ((503, None), (200, {"results": []}), (200, [1])):
                judge.status, judge.body = status, body
                own = await library.ask("oil pump", 3)
                assert "pump" in own.chunks[0].text
                assert [each.n for each in own.chunks] == [1, 2, 3]
        finally:
            await house.close()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


async def test_files_lie_in_s3_and_go_with_their_documents(
    documents_database: Database, tmp_path: Path, s3: str
) -> None:
    bucket = bucket_at(s3)
    house = House(
        documents_database,
        embedding_base_url="http://127.0.0.1:1",
        embedding_model="words",
        s3_endpoint_url=s3,
        s3_bucket=bucket,
        s3_access_key_id=ACCESS["access_key_id"],
        s3_secret_access_key=ACCESS["secret_access_key"],
        s3_region=ACCESS["region"],
    )
    await house.start()
    client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name=ACCESS["region"],
        aws_access_key_id=ACCESS["access_key_id"],
        aws_secret_access_key=ACCESS["secret_access_key"],
    )
    try:
        library = await furnish(house, tmp_path, WordVectors())
        document = await library.learn("manual.txt", TEXT)
        assert document.status == "ready"
        assert (await library.ask("cedar pump")).chunks[0].document_id == document.id
        [kept] = client.list_objects_v2(Bucket=bucket)["Contents"]
        body = client.get_object(Bucket=bucket, Key=kept["Key"])["Body"].read()
        assert body == TEXT.encode()
        # Lost from outside, it is said so; nothing else breaks.
        client.delete_object(Bucket=bucket, Key=kept["Key"])
        async with library.parts.open_documents() as documents:
            await documents.process(library.master, DocumentPath(document_id=document.id))
        again = await library.read(document)
        assert (again.status, again.reason) == ("failed", "file_missing")
        second = await library.learn("other.txt", TEXT + "More.")
        async with library.parts.open_documents() as documents:
            await documents.delete(library.master, DocumentPath(document_id=second.id))
        await library.parts.purger.purge_document(library.master.client_id, second.id)
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    finally:
        client.close()
        await house.close()
