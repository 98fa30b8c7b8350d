"""REST: searches in a bot's documents, and their receipts."""

from typing import Final

from chatserver.assistant.bots.errors import BotNotFoundError
from chatserver.assistant.bots.schemas import settings_of
from chatserver.assistant.bots.service import BotService
from chatserver.assistant.retrieval.errors import RetrievalNotFoundError
from chatserver.assistant.retrieval.schemas import (
    Hit,
    Hits,
    ReceiptOut,
    ReceiptPath,
    Replay,
    Retrieved,
    SearchBot,
)
from chatserver.assistant.retrieval.service import RetrievalService
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.transport.registry import MASTER, Route, operation


class RetrievalHttp:
    def __init__(self, bots: Open[BotService], retrieval: RetrievalService) -> None:
        self._bots = bots
        self._retrieval = retrieval

    @operation("bot.search", SearchBot, Hits, scope=Scope.ASSISTANT_USE, errors=(BotNotFoundError,))
    async def search(self, principal: Principal, command: SearchBot) -> Hits:
        """Search a bot's documents, without an answer being written.

        The best passages come first. A question may be a sentence or some words.
        """
        async with self._bots() as bots:
            bot = await bots.usable(principal, command.bot_id)
        found = await self._retrieval.search(
            principal.client_id,
            [bot.id],
            command.q,
            command.limit,
            weight=settings_of(bot.retrieval).weight,
            asked_by=principal.user_id if principal.is_user else None,
            keep=command.receipt,
        )
        return hits(found)

    @operation(
        "retrieval.get",
        ReceiptPath,
        ReceiptOut,
        callers=MASTER,
        errors=(BotNotFoundError, RetrievalNotFoundError),
    )
    async def receipt(self, principal: Principal, command: ReceiptPath) -> ReceiptOut:
        """Show the receipt of a search: what it weighed, and what it chose."""
        async with self._bots() as bots:
            await bots.usable(principal, command.bot_id)
        return await self._retrieval.receipt(
            principal.client_id, command.bot_id, command.retrieval_id
        )

    @operation(
        "retrieval.replay",
        ReceiptPath,
        Replay,
        callers=MASTER,
        errors=(BotNotFoundError, RetrievalNotFoundError),
    )
    async def replay(self, principal: Principal, command: ReceiptPath) -> Replay:
        """Do a search again, and tell what would be chosen now."""
        async with self._bots() as bots:
            await bots.usable(principal, command.bot_id)
        return await self._retrieval.replay(
            principal.client_id, command.bot_id, command.retrieval_id
        )


def hits(found: Retrieved) -> Hits:
    return Hits(
        items=[
            Hit(
                chunk_id=each.chunk_id,
                document_id=each.document_id,
                title=each.title,
                page=each.page,
                page_end=each.page_end,
                url=each.url,
                heading=each.heading,
                char_start=each.char_start,
                char_end=each.char_end,
                score=each.score,
                text=each.text,
            )
            for each in found.chunks
        ],
        weak=found.is_weak,
        legs=found.legs,
        model=found.model,
        timings=found.timings,
        retrieval_id=found.retrieval_id,
    )


_RECEIPT: Final = "/bots/{bot_id}/retrievals/{retrieval_id}"
ROUTES: Final = (
    Route(method="GET", path="/bots/{bot_id}/search", operation="bot.search"),
    Route(method="GET", path=_RECEIPT, operation="retrieval.get"),
    Route(method="POST", path=_RECEIPT + "/replay", operation="retrieval.replay"),
)
