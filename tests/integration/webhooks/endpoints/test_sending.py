"""From a committed fact to a signed request and its attempt."""

from chatserver.kernel.principal import Principal
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
