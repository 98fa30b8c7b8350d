"""Support rooms between bots and people: what is given back is answered at once."""

from chatserver.kernel.principal import Principal
from chatserver.support.schemas import Assign
from tests.integration.assistant.conftest import Scene, scene_of
from tests.support.answers import Studio
from tests.support.servers import Database


async def say(scene: Scene, who: Principal, text: str) -> str:
    """Send a message, and let the worker look at it as the outbox does."""
    sent = await scene.studio.talk.send(who, scene.room, text)
    async with scene.studio.wiring.open_answers() as answers_:
        await answers_.consider(who.client_id, scene.room, sent.message.id)
    return str(sent.message.id)


async def answers(scene: Scene) -> list[str]:
    """Name the messages that were answered."""
    rows = await scene.studio.talk.rows(
        "select question_id from generation where room_id = $1 order by created_at", scene.room
    )
    return [str(row["question_id"]) for row in rows]


async def test_what_is_handed_back_it_answers_from_the_next_message_on(
    assistant_database: Database,
) -> None:
    studio = Studio(assistant_database)
    await studio.start()

    async def give(user_id: str | None) -> None:
        async with studio.talk.container.open_support() as support:
            await support.assign(scene.master, Assign(room_id=scene.room, user_id=user_id))

    try:
        scene = await scene_of(studio, kind="support")  # alice is the customer
        await give("bob")
        await say(scene, scene.bob, "I have a look.")
        await say(scene, scene.alice, "Thank you.")
        await give(None)
        first = await say(scene, scene.alice, "When does it open?")
        assert await answers(scene) == [first]
        # Who only wrote there gives it back in the same way; his next word takes it again.
        await say(scene, scene.bob, "One moment.")
        await say(scene, scene.alice, "Yes?")
        await give(None)
        second = await say(scene, scene.alice, "And now?")
        await say(scene, scene.bob, "I am back.")
        await say(scene, scene.alice, "Good.")
        assert await answers(scene) == [first, second]
    finally:
        await studio.stop()
