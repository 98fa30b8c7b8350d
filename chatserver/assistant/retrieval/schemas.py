"""What a search over documents gives: passages with their place, and how they were found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol
from uuid import UUID

from pydantic import Field, StringConstraints

from chatserver.kernel.wire import Answer, Id, Request, Timestamp, left_out

LONGEST_QUERY: int = 4_000
WEIGHT: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedChunk:
    """A passage, best first; `n` counts from 1 and is what `[n]` in an answer means.

    `char_start` and `char_end` are a half-open span of code points in the document's text;
    `page` and `page_end` count from 1 and are None where a document has no pages.
    """

    n: int
    chunk_id: UUID
    document_id: UUID
    document_version: int
    bot_id: UUID
    title: str
    text: str
    char_start: int
    char_end: int
    score: float
    cosine: float
    bm25: float
    page: int | None = None
    page_end: int | None = None
    url: str | None = None
    heading: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """One search. `retrieval_id` names its receipt, None when none was kept.

    `is_weak`: nothing found says anything about the question; answer "not in your sources".
    `legs`: `hybrid`, or `lexical` when no embedder was at hand. `timings` are milliseconds.
    """

    query: str
    chunks: tuple[RetrievedChunk, ...]
    is_weak: bool
    legs: str
    model: str | None
    timings: dict[str, float] = field(default_factory=dict)
    retrieval_id: UUID | None = None


class Retrieval(Protocol):
    """What `generation` needs; `RetrievalService` is it. Rights are the caller's business."""

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
        """Find the passages that say most about a question, in documents of these bots alone.

        `weight`: of meaning against words. `whole_tokens`: give all passages, the best first, where
        the documents have no more tokens than this; then nothing is weak. `keep`: store a receipt,
        which `asked_by` (a server id) lets an erasure find.

        Raises:
            UnavailableError: PostgreSQL is away. An embedder that is away is no error: `legs`.
        """
        ...


class SearchBot(Request):
    """A question to a bot's documents. `receipt`: keep what was weighed, to look at it later."""

    bot_id: Id
    q: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_QUERY)]
    limit: Annotated[int, Field(ge=1, le=50)] = 10
    receipt: bool = False


class Hit(Answer):
    """A passage. `score` is from 0 to 1 and compares hits of one search alone."""

    chunk_id: Id
    document_id: Id
    title: str
    page: int | None = left_out()
    page_end: int | None = left_out()
    url: str | None = left_out()
    heading: str
    char_start: int
    char_end: int
    score: float
    text: str


class Hits(Answer):
    """The hits, best first. `weak`: nothing found says anything about the question.

    `legs`: `hybrid`, or `lexical` while no embedder is at hand. Times are in milliseconds.
    """

    items: list[Hit]
    weak: bool
    legs: str
    model: str | None
    timings: dict[str, float]
    retrieval_id: Id | None = left_out()


class ReceiptPath(Request):
    bot_id: Id
    retrieval_id: Id


class Weighed(Answer):
    chunk_id: Id
    cosine: float
    bm25: float
    score: float
    chosen: bool


class ReceiptOut(Answer):
    """What a search was asked, weighed and chose."""

    id: Id
    query: str
    model: str | None
    legs: str
    weight: float
    candidates: list[Weighed]
    timings: dict[str, float]
    created_at: Timestamp


class Replay(Answer):
    """The same search, done again. `same`: it chooses the same passages in the same order."""

    same: bool
    missing: list[Id]
    added: list[Id]
    before: ReceiptOut
    now: list[Weighed]
