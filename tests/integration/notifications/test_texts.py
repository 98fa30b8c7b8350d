"""Text messages: what is there without an adapter, and what an adapter is given."""

from typing import Any

import orjson
import pytest

from chatserver.deliveries.models import Target
from chatserver.infra.mail import Outcome
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.notifications.requests.policies import SMS
from chatserver.providers.models import Provider
from chatserver.providers.schemas import CreateProvider
from chatserver.providers.service import place_of_config
from tests.support.notifying import near, send, settled, working
from tests.support.talk import Talk
from tests.support.talking import master

__all__ = ["master", "near"]

TEXT = {"channels": {"sms": {"text": "Your code is 123456"}}}


@pytest.fixture
async def talk(near: Talk) -> Talk:
    return near


class Phones:
    """A provider of this test's own, which answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[tuple[dict[str, Any], str, str]] = []
        self.answer = Outcome(kind="accepted", phase="done")

    async def send(
        self, config: dict[str, Any], recipient: str, text: str, *, delivery_id: str
    ) -> Outcome:
        self.taken.append((config, recipient, text))
        return self.answer


@pytest.fixture
async def phones(talk: Talk, master: Principal) -> Phones:
    made = Phones()
    sending = talk.container.sending
    sending.senders[SMS] = sending.text_sender({"test": made})
    config = orjson.dumps({"token": "secret"})
    provider_id = uuid7()
    place = place_of_config(master.client_id, provider_id)
    async with talk.container.database.transaction() as session:
        session.add(Target(id=provider_id, client_id=master.client_id, channel=SMS))
        session.add(
            Provider(
                id=provider_id,
                client_id=master.client_id,
                channel=SMS,
                kind="test",
                name="phones",
                sealed=talk.container.box.seal(config, bound_to=place),
            )
        )
    return made


@pytest.mark.parametrize("channel", ["sms", "push"])
async def test_a_provider_without_an_adapter_is_refused_in_so_many_words(
    talk: Talk, master: Principal, channel: str
) -> None:
    command = CreateProvider.model_validate(
        {"channel": channel, "kind": "twilio", "name": "x", "config": {}}
    )
    with pytest.raises(PayloadInvalidError, match="no adapter") as refused:
        await talk.container.providers.checks.create(master, command)
    assert refused.value.issues[0]["field"] == "kind"


async def test_without_a_number_or_a_provider_it_ends_honestly(
    talk: Talk, master: Principal
) -> None:
    sent = await send(
        talk, master, recipients=[{"phone": "+15551234567"}, {"email": "a@example.net"}], **TEXT
    )
    assert [(it.recipient, it.state, it.reason) for it in sent.deliveries] == [
        ({"phone": "+15551234567"}, "failed", "no_provider"),
        ({}, "suppressed", "no_address"),
    ]


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (Outcome(kind="accepted", phase="done"), "accepted", None),
        (Outcome(kind="recipient", phase="answer", code=404), "bounced", "answer_404"),
        (Outcome(kind="content", phase="answer", code=400), "failed", "answer_400"),
        # It may have been taken: a second one would cost, and disturb.
        (Outcome(kind="ambiguous", phase="answer"), "failed", "unknown_outcome"),
    ],
)
async def test_an_adapter_is_asked_once_and_its_outcome_is_the_end(
    talk: Talk, master: Principal, phones: Phones, answer: Outcome, state: str, reason: str | None
) -> None:
    phones.answer = answer
    async with working(talk):
        sent = await send(talk, master, recipients=[{"phone": "+15551234567"}], **TEXT)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, done.reason, done.tries) == (state, reason, 1)
    assert done.recipient == {"phone": "+15551234567"}
    assert phones.taken == [({"token": "secret"}, "+15551234567", "Your code is 123456")]
