"""Finds the passages that say most about a question: by meaning and by words, fused."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
import structlog

from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.schemas import Known, Vectors, written
from chatserver.assistant.reading.cleaning import clean
from chatserver.assistant.reading.language import searchable
from chatserver.assistant.retrieval import policies
from chatserver.assistant.retrieval.errors import RetrievalNotFoundError
from chatserver.assistant.retrieval.policies import Candidate
from chatserver.assistant.retrieval.repository import (
    RECEIPT_CANDIDATES,
    SearchRepository,
    Standing,
)
from chatserver.assistant.retrieval.schemas import (
    LONGEST_QUERY,
    WEIGHT,
    ReceiptOut,
    Replay,
    Retrieved,
    RetrievedChunk,
    Weighed,
)
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7

# A question's vector may take so long; after that words alone must do.
EMBED_S: Final = 2.5
# No bot gives more than this as a whole; see `bots/schemas.py`.
MOST_WHOLE: Final = 16_000
# So many of the best are given to the re-ranking endpoint, if there is one.
RERANKED: Final = 20
# Some of the best may be deleted by now, or stand in several documents.
SPARE: Final = 20

log = structlog.get_logger()


class Embedders(Protocol):
    async def known(self, model_id: int) -> Known: ...

    async def embed(self, texts: Sequence[str], model: Known | None = None) -> Vectors: ...


class Reranks(Protocol):
    """Orders texts by what they say about a question; see `infra/reranker.py`."""

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]: ...


class RetrievalService:
    """Who may ask is the caller's business; what is found is of these bots of this client alone."""

    def __init__(
        self,
        *,
        searches: SearchRepository,
        embedders: Embedders,
        reranker: Reranks | None = None,
    ) -> None:
        self._searches = searches
        self._embedders = embedders
        self._reranker = reranker

    async def search(
        self,
        client_id: UUID,
        bot_ids: Sequence[UUID],
        query: str,
        limit: int = 6,
        *,
        weight: float = WEIGHT,
        whole_tokens: int = 0,
        asked_by: UUID | None = None,
        keep: bool = False,
    ) -> Retrieved:
        """Find passages, best first; see `Retrieval`.

        Raises:
            UnavailableError: PostgreSQL is away. An embedder that is away is no error: `legs`.
        """
        began = time.monotonic()
        question = clean(query).text.strip()[:LONGEST_QUERY]
        standings = await self._searches.standings(client_id, bot_ids)
        is_whole = 0 < sum(each.tokens for each in standings) <= whole_tokens
        if is_whole:
            limit = sum(each.n_chunks for each in standings)
        model = None
        timings: dict[str, float] = {}
        vectors: dict[int, str] = {}
        for model_id in {each.model_id for each in standings}:
            model = await self._embed(model_id, question, vectors)
        timings["embed"] = _since(began)
        asked = time.monotonic()
        candidates, rarest = await self._candidates(client_id, standings, question, vectors)
        timings["search"] = _since(asked)
        fused = policies.fuse(candidates, weight)
        read = time.monotonic()
        good = fused if is_whole else policies.good_enough(fused)
        reranks = self._reranker is not None and not is_whole
        several = max(limit, RERANKED) if reranks else limit
        chunks = await self._chunks(client_id, bot_ids, good, several)
        timings["read"] = _since(read)
        if reranks:
            ranked = time.monotonic()
            chunks = (await self._reranked(question, chunks))[:limit]
            timings["rerank"] = _since(ranked)
        timings["total"] = _since(began)
        retrieved = Retrieved(
            query=query,
            chunks=chunks,
            is_weak=not (is_whole and chunks) and policies.is_weak(candidates, rarest),
            legs="hybrid" if vectors or not standings else "lexical",
            model=None if model is None else model.name,
            timings=timings,
            retrieval_id=uuid7() if keep else None,
        )
        if retrieved.retrieval_id is not None:
            values = _receipt(retrieved, bot_ids, asked_by, fused, weight, limit)
            values["model_id"] = None if model is None else model.id
            values["is_whole"] = is_whole
            await self._searches.keep(retrieved.retrieval_id, client_id, values)
        return retrieved

    async def chunks_exist(self, client_id: UUID, chunk_ids: Sequence[UUID]) -> set[UUID]:
        """Tell which of these passages are still there."""
        return await self._searches.exist(client_id, chunk_ids)

    async def receipt(self, client_id: UUID, bot_id: UUID, retrieval_id: UUID) -> ReceiptOut:
        """Show what a search weighed.

        Raises:
            RetrievalNotFoundError: none was kept, or not of this bot of this client.
        """
        row = await self._searches.receipt(client_id, bot_id, retrieval_id)
        if row is None:
            raise RetrievalNotFoundError
        model = None
        if row["model_id"] is not None:
            model = (await self._embedders.known(row["model_id"])).name
        return ReceiptOut(
            id=row["id"],
            query=row["query"],
            model=model,
            legs=row["legs"],
            weight=row["weight"],
            candidates=[_weighed(each) for each in orjson.loads(row["candidates"])],
            timings=orjson.loads(row["timings"]),
            created_at=row["created_at"],
        )

    async def replay(self, client_id: UUID, bot_id: UUID, retrieval_id: UUID) -> Replay:
        """Do a search again and tell what differs from what it chose.

        Raises:
            RetrievalNotFoundError: as `receipt`.
        """
        before = await self.receipt(client_id, bot_id, retrieval_id)
        row = await self._searches.receipt(client_id, bot_id, retrieval_id)
        if row is None:
            raise RetrievalNotFoundError
        again = await self.search(
            client_id,
            row["bot_ids"],
            before.query,
            row["top"],
            weight=before.weight,
            whole_tokens=MOST_WHOLE if row["is_whole"] else 0,
        )
        now = [
            Weighed(
                chunk_id=each.chunk_id,
                cosine=each.cosine,
                bm25=each.bm25,
                score=each.score,
                chosen=True,
            )
            for each in again.chunks
        ]
        chosen = [each.chunk_id for each in before.candidates if each.chosen]
        found = [each.chunk_id for each in now]
        return Replay(
            same=chosen == found,
            missing=[each for each in chosen if each not in found],
            added=[each for each in found if each not in chosen],
            before=before,
            now=now,
        )

    async def _embed(self, model_id: int, question: str, vectors: dict[int, str]) -> Known | None:
        try:
            async with asyncio.timeout(EMBED_S):
                model = await self._embedders.known(model_id)
                (vector,) = await self._embedders.embed([question], model)
        except (EmbedderAwayError, TimeoutError) as error:
            log.warning("question_not_embedded", error=type(error).__name__)
            return None
        vectors[model_id] = written(vector)
        return model

    async def _reranked(
        self, question: str, chunks: tuple[RetrievedChunk, ...]
    ) -> tuple[RetrievedChunk, ...]:
        """Order passages by the endpoint's word; as they are, where it has none."""
        if self._reranker is None or not chunks:
            return chunks
        try:
            scores = await self._reranker.scores(question, [each.text for each in chunks])
        except UnavailableError as error:
            log.warning("not_reranked", error=str(error))
            return chunks
        ordered = sorted(zip(scores, chunks, strict=True), key=lambda each: (-each[0], each[1].n))
        return tuple(
            replace(chunk, n=n, score=round(min(max(score, 0.0), 1.0), 6))
            for n, (score, chunk) in enumerate(ordered, start=1)
        )

    async def _candidates(
        self,
        client_id: UUID,
        standings: Sequence[Standing],
        question: str,
        vectors: dict[int, str],
    ) -> tuple[list[Candidate], float]:
        words = searchable(question)
        answers = await asyncio.gather(
            *(
                self._searches.candidates(client_id, each, words, vectors.get(each.model_id))
                for each in standings
            )
        )
        found = [each for several, _ in answers for each in several]
        return found, max((rarest for _, rarest in answers), default=0.0)

    async def _chunks(
        self, client_id: UUID, bot_ids: Sequence[UUID], fused: Sequence[Candidate], limit: int
    ) -> tuple[RetrievedChunk, ...]:
        best = fused[: limit + SPARE]
        rows = await self._searches.chunks(client_id, bot_ids, [each.chunk_id for each in best])
        chunks: list[RetrievedChunk] = []
        seen: set[str] = set()
        for each in best:
            row = rows.get(each.chunk_id)
            # The same passage in two documents is one source, the better found of them.
            if row is None or row["body"] in seen or len(chunks) == limit:
                continue
            seen.add(row["body"])
            chunks.append(
                RetrievedChunk(
                    n=len(chunks) + 1,
                    chunk_id=row["id"],
                    document_id=row["document_id"],
                    document_version=row["indexed_version"],
                    bot_id=row["bot_id"],
                    title=row["title"],
                    text=row["body"],
                    char_start=row["char_start"],
                    char_end=row["char_end"],
                    score=round(each.score, 6),
                    cosine=round(each.cosine, 6),
                    bm25=round(each.bm25, 6),
                    page=row["page_start"],
                    page_end=row["page_end"],
                    url=row["url"],
                    heading=row["heading"],
                )
            )
        return tuple(chunks)


def _receipt(
    retrieved: Retrieved,
    bot_ids: Sequence[UUID],
    asked_by: UUID | None,
    fused: Sequence[Candidate],
    weight: float,
    limit: int,
) -> dict[str, Any]:
    chosen = {each.chunk_id for each in retrieved.chunks}
    kept = [
        each
        for place, each in enumerate(fused)
        if place < RECEIPT_CANDIDATES or each.chunk_id in chosen
    ]
    return {
        "bot_ids": list(bot_ids),
        "asked_by": asked_by,
        "query": retrieved.query.replace("\0", ""),
        "legs": retrieved.legs,
        "weight": weight,
        "top": limit,
        "candidates": [
            [
                str(each.chunk_id),
                round(each.cosine, 6),
                round(each.bm25, 6),
                round(each.score, 6),
                each.chunk_id in chosen,
            ]
            for each in kept
        ],
        "timings": retrieved.timings,
    }


def _weighed(kept: list[Any]) -> Weighed:
    chunk_id, cosine, bm25, score, chosen = kept
    return Weighed(chunk_id=UUID(chunk_id), cosine=cosine, bm25=bm25, score=score, chosen=chosen)


def _since(moment: float) -> float:
    return round((time.monotonic() - moment) * 1000, 2)
