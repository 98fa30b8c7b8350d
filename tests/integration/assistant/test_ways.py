"""What is learnt about a provider is known to whoever asks it next."""

from chatserver.assistant.answering.modelled import ModelAnswerer
from chatserver.assistant.answering.ways import Ways, endpoint_of
from tests.integration.assistant.conftest import Scene
from tests.support.language_model import ANSWER, LanguageModelServer


async def test_how_a_model_goes_on_is_learnt_once_and_for_all_workers(
    scene: Scene, provider: LanguageModelServer
) -> None:
    studio = scene.studio
    await studio.talk.run("delete from continue_way")
    await studio.work()

    async def go_on(*modes: str) -> str:
        provider.modes.extend(["die:20", *modes])
        asked = await studio.ask(scene.alice, scene.room)
        await studio.ended(scene.alice, asked.message_id)
        provider.requests.clear()
        await studio.resume(scene.alice, asked.message_id)
        final = await studio.ended(scene.alice, asked.message_id)
        assert (final["status"], final["content"]) == ("complete", ANSWER)
        return str(final["context"]["continued_by"])

    async def learnt() -> list[str]:
        rows = await studio.talk.rows("select endpoint, model, mode from continue_way")
        assert all(row["endpoint"] == f"127.0.0.1:{provider.port}/v1" for row in rows)
        return [row["mode"] for row in rows]

    assert await go_on("no_prefill", "stream") == "ask"
    assert len(provider.requests) == 2
    assert await learnt() == ["ask"]
    # Whoever comes next, in any process, does not try again what the provider does not take.
    model, database = studio.wiring._model, studio.talk.container.database
    assert model is not None
    another = ModelAnswerer(model, max_tokens=100, ways=Ways(database))
    studio.wiring.handler._preparing._answerer = another  # type: ignore[attr-defined]  # another process
    assert await go_on("stream") == "ask"
    assert len(provider.requests) == 1
    # After a week it is tried again: servers are replaced by newer ones.
    await studio.talk.run("update continue_way set learnt_at = learnt_at - interval '8 days'")
    assert await go_on("stream") == "native"
    assert await learnt() == ["native"]


def test_an_endpoint_is_named_without_what_is_secret_in_its_address() -> None:
    assert endpoint_of("https://user:key@api.example:8443/v1/?token=x") == "api.example:8443/v1"
