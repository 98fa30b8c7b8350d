"""The assistant in one process: asking, a worker that answers, and everything that it publishes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import orjson
import redis.asyncio
from sqlalchemy import text

from chatserver.assistant.bots.models import Bot
from chatserver.assistant.bots.repository import BotRepository
from chatserver.assistant.bots.service import BotService
from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.schemas import Vectors
from chatserver.assistant.generation.schemas import AnswerRef, Ask, AskedOut, CatchUp, CaughtUp
from chatserver.assistant.retrieval.schemas import Retrieved, RetrievedChunk
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.realtime import envelope
from chatserver.realtime.envelope import Kind, Seal
from chatserver.users.repository import UserRepository
from chatserver.users.service import UserService
from chatserver.wiring.answers import AnswerWiring
from tests.support.nodes import eventually
from tests.support.servers import Database
from tests.support.talk import Talk
from workers.assistant import AnswerJobs
from workers.claimer import Claimer

PASSAGE = (
    "The harbour opens at six in the morning. Boats longer than nine metres need a permit."
    " Permits are issued by the harbour master on weekdays. Dogs must be kept on a lead, and"
    " swimming between the piers is forbidden at all times."
)
OTHER = "The lighthouse was built in 1871. It is forty metres high, and open on Sundays."


class Library:
    """Documents that are always the same; what a search gives can be changed by a test."""

    def __init__(self) -> None:
        self.texts = [PASSAGE, OTHER]
        self.chunk_ids = [uuid4(), uuid4()]
        self.document_id = uuid4()
        self.is_weak = False
        self.searches: list[tuple[UUID, tuple[UUID, ...], str]] = []
        self.gone: set[UUID] = set()

    async def search(
        self,
        client_id: UUID,
        bot_ids: Sequence[UUID],
        query: str,
        limit: int = 6,
        *,
        weight: float = 0.5,
        whole_tokens: int = 0,
        asked_by: UUID | None = None,
        keep: bool = False,
    ) -> Retrieved:
        self.searches.append((client_id, tuple(bot_ids), query))
        chunks = [
            RetrievedChunk(
                n=n,
                chunk_id=chunk_id,
                document_id=self.document_id,
                document_version=1,
                bot_id=bot_ids[0],
                title="Harbour rules",
                text=words,
                char_start=1000 * n,
                char_end=1000 * n + len(words),
                score=1 / n,
                cosine=0.5,
                bm25=1.0,
                page=n,
            )
            for n, (chunk_id, words) in enumerate(
                zip(self.chunk_ids, self.texts, strict=True), start=1
            )
        ]
        return Retrieved(
            query=query,
            chunks=tuple(chunks[:limit]),
            is_weak=self.is_weak,
            legs="hybrid",
            model="test",
        )


class Shelf:
    """What the wiring of answers asks of documents: real bots, and a library as above."""

    def __init__(self, talk: Talk) -> None:
        self.library = Library()
        self._talk = talk

    @property
    def retrieval(self) -> Library:
        return self.library

    async def embed(self, texts: Sequence[str]) -> Vectors:
        raise EmbedderAwayError

    def bots(self, work: UnitOfWork) -> BotService:
        async def purge(_: UUID, __: UUID) -> None:
            return

        return BotService(
            bots=BotRepository(work.session),
            rooms=self._talk.container._rooms(work),
            people=UserService(users=UserRepository(work.session)),
            recorder=work,
            generation=self._talk.container.generation,
            purge=purge,
        )

    async def chunks_exist(self, _: UUID, chunk_ids: Sequence[UUID]) -> bool:
        return self.library.gone.isdisjoint(chunk_ids)


class Heard:
    """Everything on the bus that is in no log, by name, in the order in which it came."""

    def __init__(self, talk: Talk) -> None:
        self._seal = Seal(talk.container.bus.key, b"test listener")
        self._client = redis.asyncio.Redis.from_url(talk.container.bus.url)
        self._prefix = talk.container.bus.channels
        self.facts: list[dict[str, Any]] = []
        self.to: list[str] = []

    async def start(self) -> None:
        self._pubsub = self._client.pubsub()
        await self._pubsub.psubscribe(f"{self._prefix}:[ru]*")
        await self._pubsub.get_message(timeout=2)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._client.aclose()

    async def _run(self) -> None:
        async for message in self._pubsub.listen():
            if message["type"] != "pmessage":
                continue
            opened = self._seal.open(message["data"])
            if opened.kind is not Kind.FACT:
                continue
            fact = orjson.loads(envelope.read_fact(opened.body).body)
            if "seq" not in fact:
                self.facts.append(fact)
                self.to.append(message["channel"].decode())

    def of(self, message_id: UUID, name: str = "message.delta") -> list[dict[str, Any]]:
        return [
            fact["data"]
            for fact in self.facts
            if fact["type"] == name and fact["data"]["message_id"] == str(message_id)
        ]

    def names(self, message_id: UUID) -> list[str]:
        return [
            fact["type"] for fact in self.facts if fact["data"].get("message_id") == str(message_id)
        ]


class Studio:
    """One process that asks and answers. `house` makes it."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.talk = Talk(database, **settings)
        self.shelf = Shelf(self.talk)
        self.wiring = self.wire()
        self.heard = Heard(self.talk)
        self.claimer: Claimer | None = None
        self._running: asyncio.Task[None] | None = None

    def wire(self) -> AnswerWiring:
        container = self.talk.container
        return AnswerWiring(
            container,
            documents=self.shelf,
            rooms=container._rooms,
            members=container._members,
            people=container._users,
            messages=container.messages,
        )

    @property
    def library(self) -> Library:
        return self.shelf.library

    async def start(self) -> None:
        await self.talk.start()
        await self.wiring.start()
        await self.heard.start()

    async def work(self) -> None:
        """Let a worker begin."""
        await self.wiring.start_working()
        jobs = AnswerJobs(
            handler=self.wiring.handler, open_answers=self.wiring.open_answers, at_once=200
        )
        self.claimer = Claimer(self.talk.container.database, jobs.handlings(), poll_s=0.05)
        self._running = asyncio.create_task(self.claimer.run())

    async def rest(self) -> None:
        """Let the worker end in good order."""
        if self.claimer is not None and self._running is not None:
            await self.claimer.stop(grace_s=0.0)
            await self._running
            self._running = None

    async def stop(self) -> None:
        await self.rest()
        await self.heard.stop()
        await self.wiring.stop()
        await self.talk.stop()

    async def bot(self, client: Principal, **members: Any) -> Bot:
        async with self.talk.container.open(lambda work: work)() as work:
            bot = Bot(id=uuid7(), client_id=client.client_id, **({"name": "Guide"} | members))
            work.session.add(bot)
        return bot

    async def seat(self, bot: Bot, room_id: UUID, **members: Any) -> None:
        async with self.talk.container.open(lambda work: work)() as work:
            await work.session.execute(
                text(
                    "insert into room_bot (room_id, bot_id, client_id, answers, is_paused)"
                    " values (:room, :bot, :client, :answers, false)"
                ),
                {
                    "room": room_id,
                    "bot": bot.id,
                    "client": bot.client_id,
                    "answers": members.get("answers", "auto"),
                },
            )
            await work.session.execute(
                text("update room set bots = bots + 1 where id = :room"), {"room": room_id}
            )

    async def ask(
        self, who: Principal, room_id: UUID, content: str = "When does it open?", **more: Any
    ) -> AskedOut:
        members: dict[str, Any] = {
            "room_id": room_id,
            "content": content,
            "client_msg_id": uuid7().hex,
            **more,
        }
        async with self.wiring.open_answers() as answers:
            return await answers.ask(who, Ask(**members))

    async def cancel(self, who: Principal, message_id: UUID) -> None:
        async with self.wiring.open_answers() as answers:
            await answers.cancel(who, AnswerRef(message_id=message_id))
        await self.wiring.follower.tell_cancelled(who, message_id)

    async def resume(self, who: Principal, message_id: UUID) -> None:
        async with self.wiring.open_answers() as answers:
            await answers.resume(who, AnswerRef(message_id=message_id))

    async def catch_up(self, who: Principal, message_id: UUID, **have: int) -> CaughtUp:
        return await self.wiring.follower.catch_up(who, CatchUp(message_id=message_id, **have))

    async def message(self, who: Principal, message_id: UUID) -> dict[str, Any]:
        found = await self.talk.container.messages.message(who.client_id, message_id)
        assert found is not None
        return found

    async def ended(self, who: Principal, message_id: UUID, within_s: float = 15) -> dict[str, Any]:
        """Wait until an answer has ended, however."""

        async def look() -> dict[str, Any] | None:
            message = await self.message(who, message_id)
            return message if message["status"] in {"complete", "failed", "cancelled"} else None

        found: dict[str, Any] = await eventually(look, within_s=within_s, why="the answer ends")
        return found

    def updates(self, room_id: UUID) -> list[dict[str, Any]]:
        """Give the `message.updated` facts that were shown of a room."""
        return [
            fact["data"]["message"]
            for fact in self.talk.shown.of(room_id)
            if fact["type"] == "message.updated"
        ]


@asynccontextmanager
async def studio(database: Database, **settings: Any) -> AsyncIterator[Studio]:
    made = Studio(database, **settings)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
