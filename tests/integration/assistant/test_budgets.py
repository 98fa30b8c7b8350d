"""How much of its answers a client may have at a time, whichever way they are asked for."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from chatserver.realtime.errors import QuotaExceededError
from tests.integration.assistant.conftest import Scene, scene_of
from tests.support.answers import Studio
from tests.support.language_model import ANSWER, LanguageModelServer
from tests.support.servers import Database


@pytest.fixture
async def narrow(
    assistant_database: Database, provider: LanguageModelServer
) -> AsyncIterator[Scene]:
    """A client that has one answer at a time."""
    studio = Studio(assistant_database, openai_base_url=provider.url, answers_at_once=1)
    await studio.start()
    try:
        yield await scene_of(studio)
    finally:
        provider.gate.set()
        await studio.stop()


async def test_a_client_has_so_many_answers_at_once_and_no_more(
    narrow: Scene, provider: LanguageModelServer
) -> None:
    studio = narrow.studio
    provider.modes.append("die:20")
    await studio.work()
    failed = await studio.ask(narrow.alice, narrow.room)
    await studio.ended(narrow.alice, failed.message_id)
    provider.modes.append("hold:20")
    first = await studio.ask(narrow.alice, narrow.room)
    elsewhere = await studio.talk.room(narrow.bob, kind="assistant")
    await studio.seat(narrow.bot, elsewhere.id)
    with pytest.raises(QuotaExceededError):
        await studio.ask(narrow.bob, elsewhere.id)
    # Nor by going on with an old one, or by writing where a bot answers by itself.
    with pytest.raises(QuotaExceededError):
        await studio.resume(narrow.bob, failed.message_id)
    sent = await studio.talk.send(narrow.bob, elsewhere.id, "When does it open?")

    async def consider() -> None:
        async with studio.wiring.open_answers() as answers:
            await answers.consider(narrow.bob.client_id, elsewhere.id, sent.message.id)

    with pytest.raises(QuotaExceededError):
        await consider()
    provider.gate.set()
    assert (await studio.ended(narrow.alice, first.message_id))["content"] == ANSWER
    await consider()
    [row] = await studio.talk.rows(
        "select message_id from generation where question_id = $1", sent.message.id
    )
    assert (await studio.ended(narrow.bob, UUID(str(row["message_id"]))))["content"] == ANSWER


async def test_a_bot_may_be_allowed_to_answer_from_nothing(
    scene: Scene, provider: LanguageModelServer
) -> None:
    scene.studio.library.is_weak = True
    free = await scene.studio.bot(scene.master, retrieval={"answer_without_sources": True})
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room, bot_id=free.id)
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert final["content"] == ANSWER
    assert len(provider.requests) == 1
