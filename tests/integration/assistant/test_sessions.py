"""Sessions: their life, what is said in them, and what travels."""

from uuid import UUID, uuid4

import pytest

from chatserver.assistant.generation.errors import AnswerNotFoundError
from chatserver.assistant.sessions.errors import SessionNotFoundError
from chatserver.assistant.sessions.schemas import (
    CreateSession,
    ImportSession,
    ListSessions,
    SayInSession,
    SearchSessions,
    SessionOut,
    SessionPath,
    UpdateSession,
)
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from tests.integration.assistant.conftest import Scene, scene_of


class Desk:
    """Sessions of one studio; each call is a transaction."""

    def __init__(self, scene: Scene) -> None:
        self.open = scene.studio.wiring.open_sessions

    async def create(self, who: Principal, **members: object) -> SessionOut:
        async with self.open() as sessions:
            return await sessions.create(who, CreateSession(**members))  # type: ignore[arg-type]

    async def page(self, who: Principal, **members: object) -> list[SessionOut]:
        async with self.open() as sessions:
            return (await sessions.find_page(who, ListSessions(**members))).items  # type: ignore[arg-type]

    async def say(self, who: Principal, session_id: UUID, content: str, **members: object) -> UUID:
        command = SayInSession(session_id=session_id, content=content, **members)  # type: ignore[arg-type]
        async with self.open() as sessions:
            said = await sessions.say(who, command)
        return said.message_id or UUID(str(said.message.id))


@pytest.fixture
def desk(extracts: Scene) -> Desk:
    return Desk(extracts)


async def test_favourites_come_first_then_the_liveliest(extracts: Scene, desk: Desk) -> None:
    made = [await desk.create(extracts.alice, title=f"S{at}") for at in range(3)]
    assert made[0].bot_id == extracts.bot.id
    async with desk.open() as sessions:
        favourite = await sessions.toggle_favorite(
            extracts.alice, SessionPath(session_id=made[0].id)
        )
    assert favourite.is_favorite
    found = await desk.page(extracts.alice)
    # The scene's own room is alice's, too.
    assert [each.title for each in found][:3] == ["S0", "S2", "S1"]
    assert await desk.page(extracts.bob) == []
    of_alice = await desk.page(extracts.master, user_id="alice")
    assert [each.id for each in of_alice] == [each.id for each in found]
    with pytest.raises(PayloadInvalidError):
        await desk.page(extracts.bob, user_id="alice")


async def test_a_session_is_renamed_answered_named_searched_and_deleted(
    extracts: Scene, desk: Desk
) -> None:
    studio = extracts.studio
    await studio.work()
    session = await desk.create(extracts.alice)
    question = "When does the harbour open, and for whom is it that it opens so early every day?"
    answer = await desk.say(extracts.alice, session.id, question)
    final = await studio.ended(extracts.alice, answer)
    assert "The harbour opens at six in the morning." in final["content"]
    async with desk.open() as sessions:
        named = await sessions.get(extracts.alice, SessionPath(session_id=session.id))
        hits = await sessions.search(extracts.alice, SearchSessions(q="HARBOUR OPENS"))
    assert named.title is not None
    assert named.title.startswith("When does the harbour open")
    assert len(named.title) <= 61
    assert [hit.message_id for hit in hits.items] == [answer]
    assert [each.id for each in await desk.page(extracts.alice, q="for whom")] == [session.id]
    assert await desk.page(extracts.alice, q="%") == []

    async with desk.open() as sessions:
        renamed = await sessions.update(
            extracts.master, UpdateSession(session_id=session.id, title="Mine")
        )
        assert renamed.title == "Mine"
        await sessions.delete(extracts.alice, SessionPath(session_id=session.id))
    with pytest.raises(SessionNotFoundError):
        await desk.say(extracts.alice, session.id, "Hello?")


async def test_messages_can_be_stored_without_an_answer(extracts: Scene, desk: Desk) -> None:
    session = await desk.create(extracts.alice)
    mine = await desk.say(extracts.alice, session.id, "Hi", generate=False, client_msg_id="a")
    again = await desk.say(extracts.alice, session.id, "Hi", generate=False, client_msg_id="a")
    theirs = await desk.say(
        extracts.alice, session.id, "Made elsewhere.", sender="ai", context={"model": "own"}
    )
    assert mine == again
    async with desk.open() as sessions:
        told = SayInSession(
            session_id=session.id, content="And this.", sender="ai", context={"model": "own"}
        )
        said = await sessions.say(extracts.alice, told)
    assert said.message.context == {"model": "own"}  # facts leave it out, the answer does not
    stored = await extracts.studio.message(extracts.alice, theirs)
    assert (stored["sender"], stored["context"]) == ("ai", {"model": "own"})
    async with extracts.studio.wiring.open_answers() as answers:
        await answers.consider(extracts.master.client_id, session.id, mine)
    rows = await extracts.studio.talk.rows(
        "select 1 from generation where room_id = $1", session.id
    )
    assert rows == []
    async with desk.open() as sessions:
        with pytest.raises(AnswerNotFoundError):
            await sessions.resume(extracts.alice, SessionPath(session_id=session.id))


async def test_an_export_comes_back_once(extracts: Scene, desk: Desk) -> None:
    studio = extracts.studio
    await studio.work()
    session = await desk.create(extracts.alice)
    await studio.ended(
        extracts.alice, await desk.say(extracts.alice, session.id, "When does it open?")
    )
    async with desk.open() as sessions:
        exported = await sessions.export(extracts.alice, SessionPath(session_id=session.id))
    taken = ImportSession.model_validate_json(exported.model_dump_json())
    async with desk.open() as sessions:
        first = await sessions.take_in(extracts.bob, taken)
    async with desk.open() as sessions:
        second = await sessions.take_in(extracts.bob, taken)
    assert (first.imported, second.imported) == (True, False)
    assert first.id == second.id != session.id
    async with desk.open() as sessions:
        back = await sessions.export(extracts.bob, SessionPath(session_id=first.id))
    for key in ("sender", "content", "context", "created_at"):
        assert [each[key] for each in back.messages] == [each[key] for each in exported.messages]
    rows = await studio.talk.rows("select 1 from generation where room_id = $1", first.id)
    assert rows == []


async def test_sessions_of_others_are_not_there(extracts: Scene, desk: Desk) -> None:
    theirs = await scene_of(extracts.studio)
    session = await desk.create(extracts.alice)
    for who in (extracts.bob, theirs.alice, theirs.master):
        for path in (SessionPath(session_id=session.id), SessionPath(session_id=uuid4())):
            async with desk.open() as sessions:
                for act in (sessions.get, sessions.delete, sessions.export, sessions.cancel):
                    with pytest.raises(SessionNotFoundError):
                        await act(who, path)
