"""From a committed fact to a signed request and its attempt."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from chatserver.chat.schemas import MessageRef
from chatserver.kernel.principal import Principal
from chatserver.notifications.requests.schemas import SendNotification
from tests.support.nodes import eventually
from tests.support.receiver import Post


async def test_a_message_arrives_signed_and_its_attempt_is_written_down(
    post: Post, master: Principal
) -> None:
    endpoint = await post.endpoint(master)
    ann = await post.talk.user(master, "ann")
    room = await post.talk.room(ann)
    async with post.at_work():
        sent = await post.talk.send(ann, room.id, "hello")
        (got,) = await post.receiver.until("/hook", 1)
        await post.settled(endpoint.id, 1)
    fact = got.verify(endpoint.secret)
    assert fact["type"] == "message.created"
    assert fact["data"]["message"]["content"] == "hello"
    assert fact["data"]["message"]["id"] == str(sent.message.id)
    assert (got.id, got.seq, got.headers["webhook-attempt"]) == (fact["id"], 1, "1")
    assert got.headers["webhook-resource-version"] == str(fact["seq"])
    (delivery,) = await post.deliveries(master, endpoint.id)
    assert (delivery.state, delivery.event_seq, str(delivery.event_id)) == ("delivered", 1, got.id)
    assert delivery.attempts is not None
    (attempt,) = delivery.attempts
    assert (attempt.no, attempt.outcome, attempt.status) == (1, "accepted", 200)
    assert attempt.peer == "127.0.0.1"
    assert attempt.request is not None
    assert attempt.request["headers"]["webhook-signature"] == got.headers["webhook-signature"]


async def test_the_trace_of_a_message_says_what_became_of_it_here(
    post: Post, master: Principal
) -> None:
    wanted = await post.endpoint(master)
    unwanted = await post.endpoint(master, "/rooms", events=["room.*"])
    ann, ben = await post.talk.users(master, "ann", "ben")
    room = await post.talk.room(ann, ben)
    container = post.talk.container

    async def nodes(*_: object) -> list[dict[str, object]]:
        return []

    async def present(users: Sequence[UUID]) -> dict[UUID, dict[str, object]]:
        return {user: {"status": "offline", "last_active_at": None} for user in users}

    async def trace(who: Principal) -> dict[str, Any]:
        ref = MessageRef(message_id=sent.message.id)
        found = await container.traces.of(who, ref, nodes, present)
        return found.model_dump(mode="json")

    sent = await post.talk.send(ann, room.id, "hello")
    waiting = await trace(master)
    assert waiting["outbox"] == {
        "attempts": 0, "due_at": None, "error": None, "set_aside_at": None,
    }  # fmt: skip
    assert [each["state"] for each in waiting["webhooks"]] == ["not_planned", "not_wanted"]
    command = SendNotification.model_validate(
        {
            "recipients": [{"user_id": "ben"}],
            "channels": {"socket": {"title": "ann wrote"}, "push": {"title": "ann wrote"}},
            "metadata": {"message_id": str(sent.message.id)},
        }
    )
    async with container.sending.open_notifications() as notifications:
        await notifications.send(master, command)
    async with post.at_work():
        await post.settled(wanted.id, 1)
    done = await trace(master)
    assert done["outbox"] is None
    by_endpoint = {each["endpoint_id"]: each for each in done["webhooks"]}
    (delivery,) = await post.deliveries(master, wanted.id)
    assert by_endpoint[str(wanted.id)]["state"] == "delivered"
    assert by_endpoint[str(wanted.id)]["delivery_id"] == str(delivery.id)
    assert by_endpoint[str(wanted.id)]["attempts"] == 1
    assert by_endpoint[str(unwanted.id)]["delivery_id"] is None
    assert done["unread_by"] == [
        {"user_id": "ben", "status": "offline", "last_active_at": None, "is_muted": False,
         "notification_level": "mentions"}
    ]  # fmt: skip
    told = {each["channel"]: (each["user_id"], each["state"]) for each in done["notifications"]}
    assert told["push"] == ("ben", "suppressed")
    assert told["socket"][0] == "ben"
    # How one wants to be told, and what the application does, is not for other users.
    own = await trace(ann)
    assert not {"webhooks", "notifications"} & set(own)
    assert own["unread_by"] == [{"user_id": "ben", "status": "offline", "last_active_at": None}]


async def test_what_cannot_be_signed_is_not_sent_and_is_nobodys_fault_but_ours(
    post: Post, master: Principal
) -> None:
    endpoint, well = await post.endpoint(master), await post.endpoint(master, "/well")
    # As if its key had been dropped from the ring.
    await post.talk.run(
        "update webhook_secret set sealed = sealed || 'x' where endpoint_id = $1", endpoint.id
    )
    room = await post.talk.room(await post.talk.user(master, "ann"))
    async with post.at_work():
        await post.talk.send(master, room.id)
        await post.settled(well.id, 1)

        async def tried() -> bool:
            return (await post.states(endpoint.id))["retry_wait"] == 1

        await eventually(tried, why="it waits for us to mend it")
    assert post.receiver.at("/hook") == []
    (delivery,) = await post.deliveries(master, endpoint.id)
    assert (await post.explained(master, delivery.id)).fault == "ours"
    assert (await post.shown(master, endpoint.id)).health.failures == 0
