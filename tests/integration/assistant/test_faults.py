"""Whatever a provider, a worker or Redis does: one end, and every character once."""

import asyncio
import hashlib
import random
from typing import Any
from uuid import UUID

import orjson
import pytest
import redis.asyncio
from sqlalchemy import text

from chatserver.infra import jobs
from chatserver.infra.job_kinds import WRITE_ANSWER
from chatserver.privacy.schemas import PersonPath
from tests.integration.assistant.conftest import Scene, scene_of
from tests.support.answers import Studio
from tests.support.language_model import ANSWER, LanguageModelServer
from tests.support.nodes import eventually
from tests.support.reader import Reader
from tests.support.servers import Database

WELL = ("stream", "comments", "split", "reason", "no_usage_option", "no_done", "busy:0.1")
# How a provider fails in the middle, and what the answer's row then says.
BROKEN = {
    "die": "provider_busy",
    "error": "provider_failed",
    "garbage": "provider_failed",
    "cut": "provider_failed",
    "no_reason": "provider_failed",
}


async def check_numbers(scene: Scene, message_id: UUID, final: dict[str, Any]) -> None:
    """As many deltas were sent as the end says.

    The row says that an answer has ended before the last of them have come over the bus to us.
    """
    count = final["metadata"]["stream"]["deltas"]
    heard = scene.studio.heard
    await eventually(lambda: len(heard.of(message_id)) >= count, why="all deltas are heard")
    assert len(heard.of(message_id)) == count


async def check_stream(scene: Scene, message_id: UUID, final: dict[str, Any]) -> None:
    """What was sent makes what is stored, in order, sources first."""
    heard = scene.studio.heard
    await check_numbers(scene, message_id, final)
    names = [name for name in heard.names(message_id) if name != "message.progress"]
    assert names[0] == "message.sources"
    deltas = heard.of(message_id)
    assert [delta["index"] for delta in deltas] == list(range(1, len(deltas) + 1))
    said = "".join(delta["text"] for delta in deltas)
    stored = final["content"] or final["partial_content"]
    assert said == stored
    stream = final["metadata"]["stream"]
    assert stream["deltas"] == len(deltas)
    assert stream["sha256"] == hashlib.sha256(said.encode()).hexdigest()


@pytest.mark.parametrize("mode", WELL)
async def test_an_answer_streams_whatever_the_provider_s_manners(
    scene: Scene, provider: LanguageModelServer, mode: str
) -> None:
    provider.modes.append(mode)
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert (final["status"], final["content"]) == ("complete", ANSWER)
    assert final["context"]["citations"][0]["quote"].startswith("The harbour opens")
    await check_stream(scene, asked.message_id, final)
    [update] = await eventually(lambda: scene.studio.updates(scene.room), why="it is shown")
    assert update["content"] == ANSWER
    assert update["context"]["omitted"] is True


@pytest.mark.parametrize("mode", BROKEN)
async def test_a_failure_keeps_what_there_was_and_is_resumed_with_the_same_sources(
    scene: Scene, provider: LanguageModelServer, mode: str
) -> None:
    provider.modes.append(mode)
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    failed = await scene.studio.ended(scene.alice, asked.message_id)
    assert failed["status"] == "failed"
    assert failed["error_message"]
    assert failed["content"] == ""
    assert len(failed["partial_content"]) > 20
    assert ANSWER.startswith(failed["partial_content"])
    await check_stream(scene, asked.message_id, failed)
    code = await scene.studio.talk.rows(
        "select error_code from generation where message_id = $1", asked.message_id
    )
    assert code == [{"error_code": BROKEN[mode]}]

    provider.gate.set()
    await scene.studio.resume(scene.alice, asked.message_id)
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert (final["status"], final["content"]) == ("complete", ANSWER)
    assert final["context"]["continued_by"] == "native"
    assert len(scene.studio.library.searches) == 1
    assert final["context"]["chunks"] == failed["context"]["chunks"]
    await check_stream(scene, asked.message_id, final)


@pytest.mark.parametrize(
    ("modes", "by"),
    [
        (["repeat"], "native"),
        (["no_prefill", "stream"], "ask"),
        (["no_prefill", "repeat"], "ask"),
        (["restart"], "native"),
    ],
)
async def test_an_answer_is_gone_on_with_whichever_way_the_provider_takes(
    scene: Scene, provider: LanguageModelServer, modes: list[str], by: str
) -> None:
    provider.modes.extend(["die:20", *modes])
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    await scene.studio.ended(scene.alice, asked.message_id)
    await scene.studio.resume(scene.alice, asked.message_id)
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert (final["status"], final["content"]) == ("complete", ANSWER)
    assert final["context"]["continued_by"] == by


async def test_a_model_that_begins_again_otherwise_replaces_what_was_shown(
    scene: Scene, provider: LanguageModelServer
) -> None:
    provider.modes.append("die:20")
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    failed = await scene.studio.ended(scene.alice, asked.message_id)
    provider.words = ANSWER.replace("harbour", "harbor").replace("morning", "mornings").split(" ")
    provider.modes.extend(["restart"] * 4)
    await scene.studio.resume(scene.alice, asked.message_id)
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert final["status"] == "complete"
    assert final["content"] == " ".join(provider.words)
    assert final["context"]["continued_by"] == "restart"
    await check_numbers(scene, asked.message_id, final)
    deltas = scene.studio.heard.of(asked.message_id)
    # Numbers go on; the higher generation is what makes readers replace the text.
    assert [delta["index"] for delta in deltas] == list(range(1, len(deltas) + 1))
    last = deltas[-1]["generation"]
    assert "".join(d["text"] for d in deltas if d["generation"] == last) == final["content"]
    assert failed["partial_content"] not in final["content"]


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("stall_first", "timeout"),
        ("stall", "timeout"),
        ("refuse", "provider_failed"),
        ("drip", "deadline"),
    ],
)
async def test_an_answer_ends_by_its_deadlines(
    impatient: Scene, provider: LanguageModelServer, mode: str, code: str
) -> None:
    provider.modes.append(mode)
    await impatient.studio.work()
    asked = await impatient.studio.ask(impatient.alice, impatient.room)
    final = await impatient.studio.ended(impatient.alice, asked.message_id)
    assert final["status"] == "failed"
    assert bool(final["partial_content"]) is (mode in {"stall", "drip"})
    rows = await impatient.studio.talk.rows(
        "select error_code from generation where message_id = $1", asked.message_id
    )
    assert rows == [{"error_code": code}]


async def test_any_device_cancels_and_the_provider_is_hung_up_on(
    scene: Scene, provider: LanguageModelServer
) -> None:
    provider.modes.append("hold:20")
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    await eventually(lambda: scene.studio.heard.of(asked.message_id))
    await scene.studio.cancel(scene.bob, asked.message_id)
    final = await scene.studio.ended(scene.alice, asked.message_id, within_s=2)
    assert final["status"] == "cancelled"
    assert ANSWER.startswith(final["partial_content"])
    assert final["partial_content"]
    await eventually(lambda: provider.hung_up == 1)
    await scene.studio.cancel(scene.bob, asked.message_id)  # again changes nothing
    assert (await scene.studio.message(scene.alice, asked.message_id))["status"] == "cancelled"

    await scene.studio.resume(scene.alice, asked.message_id)
    again = await scene.studio.ended(scene.alice, asked.message_id)
    assert (again["status"], again["content"]) == ("complete", ANSWER)


async def test_a_pending_answer_is_cancelled_before_anybody_writes_it(scene: Scene) -> None:
    asked = await scene.studio.ask(scene.alice, scene.room)
    await scene.studio.cancel(scene.alice, asked.message_id)
    await scene.studio.work()
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert final["status"] == "cancelled"


async def _lose(studio: Studio) -> None:
    """Let the lease of every answer be over, as after a kill, and sweep."""
    async with studio.talk.container.database.transaction() as session:
        await session.execute(
            text(
                "update job set lease_until = clock_timestamp() - interval '1 s'"
                " where state = 'running' and kind = :kind"
            ),
            {"kind": WRITE_ANSWER.name},
        )
    async with studio.talk.container.database.transaction() as session:
        await jobs.sweep(session, WRITE_ANSWER)


async def test_a_zombie_is_fenced_off_and_its_successor_goes_on(
    scene: Scene, provider: LanguageModelServer, assistant_database: Database
) -> None:
    provider.modes.append("hold:20")
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    await eventually(
        lambda: len("".join(d["text"] for d in scene.studio.heard.of(asked.message_id))) > 60
    )
    await _lose(scene.studio)
    second = Studio(assistant_database, openai_base_url=provider.url)
    second.shelf.library = scene.studio.library
    await second.start()
    try:
        await second.work()
        await eventually(lambda: len(provider.requests) == 2)
        provider.gate.set()  # and the zombie writes on
        final = await scene.studio.ended(scene.alice, asked.message_id)
        assert (final["status"], final["content"]) == ("complete", ANSWER)
        assert len(scene.studio.library.searches) == 1
        await check_numbers(scene, asked.message_id, final)
        await asyncio.sleep(0.3)
        deltas = scene.studio.heard.of(asked.message_id)
        assert [d["index"] for d in deltas] == list(range(1, len(deltas) + 1))
        assert "".join(d["text"] for d in deltas) == ANSWER
        assert {d["generation"] for d in deltas} == {1, 2}
        updates = await eventually(
            lambda: scene.studio.updates(scene.room) + second.updates(scene.room),
            why="it is shown",
        )
        assert len(updates) == 1
    finally:
        await second.stop()


async def test_a_worker_that_is_stopped_hands_over_at_once_and_it_counts_for_nothing(
    scene: Scene, provider: LanguageModelServer, assistant_database: Database
) -> None:
    provider.modes.append("hold:20")
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    await eventually(lambda: scene.studio.heard.of(asked.message_id))
    second = Studio(assistant_database, openai_base_url=provider.url)
    await second.start()
    try:
        await scene.studio.rest()
        rows = await second.talk.rows(
            "select attempt, generation from generation where message_id = $1", asked.message_id
        )
        assert rows == [{"attempt": 0, "generation": 1}]
        await second.work()
        final = await second.ended(scene.alice, asked.message_id)
        assert (final["status"], final["content"]) == ("complete", ANSWER)
    finally:
        await second.stop()


async def test_three_lost_workers_end_an_answer_which_can_be_resumed(
    scene: Scene, provider: LanguageModelServer
) -> None:
    provider.modes.append("hold:20")
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    await eventually(lambda: scene.studio.heard.of(asked.message_id))
    await scene.studio.talk.run(
        "update generation set attempt = 3 where message_id = $1", asked.message_id
    )
    await _lose(scene.studio)
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert final["status"] == "failed"
    assert ANSWER.startswith(final["partial_content"])
    await scene.studio.resume(scene.alice, asked.message_id)
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert (final["status"], final["content"]) == ("complete", ANSWER)


async def test_redis_is_emptied_in_the_middle(scene: Scene, provider: LanguageModelServer) -> None:
    provider.modes.append("hold:20")
    await scene.studio.work()
    asked = await scene.studio.ask(scene.alice, scene.room)
    await eventually(lambda: scene.studio.heard.of(asked.message_id))
    client = redis.asyncio.Redis.from_url(scene.studio.talk.container.bus.url)
    await client.flushall()
    await client.aclose()
    reader = Reader()
    reader.catch_up((await scene.studio.catch_up(scene.bob, asked.message_id)).model_dump())
    assert ANSWER.startswith(reader.text)
    provider.gate.set()
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert (final["status"], final["content"]) == ("complete", ANSWER)
    await check_stream(scene, asked.message_id, final)


async def test_ten_readers_who_join_at_random_moments_end_with_the_stored_text(
    scene: Scene, provider: LanguageModelServer
) -> None:
    provider.pause_s = 0.02
    await scene.studio.work()
    chance = random.Random(7)
    asked = await scene.studio.ask(scene.alice, scene.room)

    async def read() -> str:
        await asyncio.sleep(chance.random() * 1.2)
        reader, seen = Reader(), len(scene.studio.heard.of(asked.message_id))
        while True:
            if reader.wants_catch_up:
                said = await scene.studio.catch_up(scene.bob, asked.message_id, **reader.have)
                reader.catch_up(said.model_dump())
                if said.status not in {"pending", "in_progress"}:
                    return reader.text
            deltas = scene.studio.heard.of(asked.message_id)
            for delta in deltas[seen:]:
                if chance.random() > 0.1:  # one in ten is lost on the way
                    reader.take(delta)
            seen = len(deltas)
            message = await scene.studio.message(scene.alice, asked.message_id)
            if message["status"] == "complete":
                reader.wants_catch_up = True
            await asyncio.sleep(chance.random() * 0.05)

    texts = await asyncio.gather(*(read() for _ in range(10)))
    final = await scene.studio.ended(scene.alice, asked.message_id)
    assert set(texts) == {final["content"]} == {ANSWER}


async def test_a_deleted_answer_is_written_no_further(
    assistant_database: Database, provider: LanguageModelServer
) -> None:
    provider.modes.append("hold:20")
    studio = Studio(assistant_database, openai_base_url=provider.url)
    await studio.start()
    try:
        scene = await scene_of(studio)
        await studio.work()
        asked = await studio.ask(scene.alice, scene.room)
        await eventually(lambda: studio.heard.of(asked.message_id))
        await studio.talk.run(
            "update message set deleted_at = clock_timestamp(), content = '',"
            " partial_content = null where id = $1",
            asked.message_id,
        )
        final = await studio.ended(scene.alice, asked.message_id)
        assert final["status"] == "cancelled"
        assert (final["content"], final["partial_content"], final["context"]) == ("", None, None)
        assert studio.updates(scene.room) == []
        said = await studio.catch_up(scene.alice, asked.message_id)
        assert (said.text, said.sources) == ("", None)
    finally:
        await studio.stop()


async def test_an_erased_person_s_answers_go_too_even_while_they_are_written(
    scene: Scene, provider: LanguageModelServer
) -> None:
    provider.modes.extend(["stream", "hold:20"])
    await scene.studio.work()
    first = await scene.studio.ask(scene.alice, scene.room, "My name is Alice Canary. When?")
    await scene.studio.ended(scene.alice, first.message_id)
    second = await scene.studio.ask(scene.alice, scene.room, "Alice Canary again?")
    await eventually(lambda: scene.studio.heard.of(second.message_id))
    container = scene.studio.talk.container
    person = PersonPath(external_id="alice")
    copy = await container.privacy.exporter.export(scene.master, person)
    lines = [orjson.loads(line) async for line in copy]
    answers = {line["id"]: line for line in lines if line["type"] == "answer"}
    assert answers.keys() == {str(first.message_id), str(second.message_id)}
    assert answers[str(first.message_id)]["content"]
    async with container.open_privacy() as privacy:
        asked = await privacy.erase(scene.master, person)
    await container.privacy.eraser.erase(asked.id)
    provider.gate.set()
    await asyncio.sleep(1.2)
    for message_id in (first.message_id, second.message_id):
        message = await scene.studio.message(scene.bob, message_id)
        assert message["status"] not in {"pending", "in_progress"}
        assert (message["content"], message["partial_content"]) == ("", None)
        assert message["context"] is None
    rows = await scene.studio.talk.rows(
        "select asked_by, sources from generation where room_id = $1", scene.room
    )
    assert rows == [{"asked_by": None, "sources": None}] * 2
