"""Each effect happens exactly once, whatever dies, and what can't be done is said."""

import asyncio
from typing import Any, Final
from uuid import UUID, uuid4

import orjson
import pytest

from chatserver.assistant.bots.schemas import CreateBot
from chatserver.chat.schemas import PostMessage, Sent
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.errors import PayloadInvalidError, UnavailableError
from chatserver.kernel.principal import Principal
from chatserver.rooms.schemas import CreateRoom
from chatserver.rooms.service import RoomService
from chatserver.webhooks.endpoints.schemas import CreateEndpoint, EndpointRef
from chatserver.webhooks.sources.effects import Effects
from chatserver.webhooks.sources.parts import Parts
from chatserver.webhooks.sources.rules import stored
from chatserver.webhooks.sources.running import MOST_ATTEMPTS, Runner, WaitingError
from chatserver.webhooks.sources.schemas import (
    EventPath,
    ReplayDead,
    SourceUpdate,
    Tried,
    TrySource,
)
from chatserver.webhooks.sources.service import RuleCheck
from chatserver.wiring.sources import Asker
from tests.integration.webhooks.sources.conftest import Shop
from tests.support.people import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDER = {
    "topic": "order.created",
    "order": {"id": 1001, "name": "#1001", "total": "59.90"},
    "customer": {"id": "cust-7", "name": "Ann"},
    "items": [{"sku": "A", "n": 2}, {"sku": "B", "n": 1}],
}
CREATE = {
    "type": "create_room",
    "external_id": "order-{{ $.order.id }}",
    "room_type": "support",
    "title": "Order {{ $.order.name }}",
    "member_ids": ["{{ $.customer.id }}"],
    "metadata": {"total": "{{ $.order.total }}", "items": "{{ $.items }}"},
}
POST = {
    "type": "post_message",
    "room_external_id": "order-{{ $.order.id }}",
    "content": "{{ $.customer.name }} bought {{ $.items[*].sku }} for {{ $.order.total }}",
}
RULE = {
    "name": "order",
    "match": [{"path": "$.topic", "op": "equals", "value": "order.created"}],
    "actions": [CREATE, POST],
}


class KilledError(BaseException):
    """Nothing that runs in the process can catch this: it is gone."""


class Dying:
    """Stores messages and dies before anybody could note it; or is away."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.dies = 0
        self.away = 0
        self.calls = 0

    async def post(self, principal: Principal, command: PostMessage) -> Sent:
        self.calls += 1
        if self.away > 0:
            self.away -= 1
            raise UnavailableError
        sent = await self.house.container.chat.post(principal, command)
        if self.dies > 0:
            self.dies -= 1
            raise KilledError
        return sent


def runner(shop: Shop, posts: Any = None, parts: Parts | None = None, rooms: Any = None) -> Runner:
    container = shop.house.container
    work = container.open(lambda within: within)
    effects = Effects(
        open_work=work,
        rooms=rooms or container._rooms,
        people=container._users,
        posts=posts or container.chat,
        parts=parts or Parts(),
    )
    return Runner(open_work=work, effects=effects)


async def rooms(shop: Shop) -> list[dict[str, Any]]:
    return await shop.house.rows(
        "select r.id, r.external_id, r.type, r.title, r.details, r.members_count from room r"
        " where r.client_id = :client order by r.created_at",
        client=shop.master.client_id,
    )


FORWARD = {"type": "forward"}


async def endpoint_of(house: House, master: Principal) -> UUID:
    async with house.container.webhooks.open_endpoints() as endpoints:
        body = {"url": "http://127.0.0.1:9/hook", "events": ["room.created"]}
        return (await endpoints.create(master, CreateEndpoint.model_validate(body))).id


async def update(shop: Shop, source_id: UUID, rules: list[Any]) -> None:
    async with shop.house.container.sources.open_sources() as sources:
        await sources.update(
            shop.master, SourceUpdate.model_validate({"id": str(source_id), "rules": rules})
        )


async def replay(shop: Shop, source_id: UUID, event_id: UUID) -> int:
    async with shop.house.container.sources.open_history() as history:
        path = EventPath(id=source_id, event_id=event_id)
        return (await history.replay(shop.master, path)).replayed


class TestEffects:
    async def test_a_room_and_a_message_with_values_from_the_payload(self, shop: Shop) -> None:
        await shop.source(rules=[RULE])
        event = await shop.handle(ORDER)
        assert (event.status, event.error) == ("done", None)
        [room] = await rooms(shop)
        assert (room["external_id"], room["type"], room["title"]) == (
            "order-1001",
            "support",
            "Order #1001",
        )
        origin = {"source": "shop", "event_id": str(event.id), "hops": 1}
        assert room["details"] == {"total": "59.90", "items": ORDER["items"], "webhook": origin}
        assert room["members_count"] == 1
        [message] = await shop.messages("order-1001")
        assert message["content"] == "Ann bought A, B for 59.90"
        assert (message["sender"], message["details"]) == ("system", {"webhook": origin})
        assert [(it.action, it.state) for it in event.effects] == [
            ("create_room", "done"),
            ("post_message", "done"),
        ]

    async def test_a_member_may_be_who_speaks(self, shop: Shop) -> None:
        said = {**POST, "sender_id": "{{ $.customer.id }}", "mentions": ["{{ $.customer.id }}"]}
        await shop.source(rules=[{**RULE, "actions": [CREATE, said]}])
        await shop.handle(ORDER)
        [message] = await shop.messages("order-1001")
        assert (message["sender"], message["sender_id"]) == ("user", "cust-7")
        assert message["mentions"] == ["cust-7"]

    async def test_what_no_rule_wants_is_ignored(self, shop: Shop) -> None:
        await shop.source(rules=[RULE, {**RULE, "name": "asleep", "match": [], "is_active": False}])
        event = await shop.handle({**ORDER, "topic": "order.paid"})
        assert (event.status, event.effects) == ("ignored", [])

    async def test_running_it_again_does_nothing(self, shop: Shop) -> None:
        await shop.source(rules=[RULE])
        event = await shop.handle(ORDER)
        await shop.run(event.id)
        assert (await shop.event(event.id)).attempts == 1
        assert len(await shop.messages("order-1001")) == 1


class TestDeath:
    async def test_between_the_message_and_its_note(self, shop: Shop) -> None:
        await shop.source(rules=[{**RULE, "actions": [CREATE, POST, POST]}])
        event_id = await shop.took(ORDER)
        posts = Dying(shop.house)
        posts.dies = 2
        for _ in range(2):
            with pytest.raises(KilledError):
                await runner(shop, posts).run(event_id)
        await runner(shop, posts).run(event_id)
        assert len(await shop.messages("order-1001")) == 2
        assert posts.calls == 4
        assert (await shop.event(event_id)).status == "done"

    async def test_within_the_transaction_of_a_room(self, shop: Shop) -> None:
        await shop.source(rules=[RULE])
        event_id = await shop.took(ORDER)
        container = shop.house.container

        def dying(work: UnitOfWork) -> RoomService:
            service = container._rooms(work)
            create = service.create

            async def created(principal: Principal, command: CreateRoom) -> Any:
                await create(principal, command)
                raise KilledError

            service.create = created  # type: ignore[method-assign]
            return service

        with pytest.raises(KilledError):
            await runner(shop, rooms=dying).run(event_id)
        assert await rooms(shop) == []
        await runner(shop).run(event_id)
        assert len(await rooms(shop)) == 1

    async def test_rules_that_change_meanwhile_change_nothing_of_what_is_planned(
        self, shop: Shop
    ) -> None:
        source = await shop.source(rules=[RULE])
        event_id = await shop.took(ORDER)
        posts = Dying(shop.house)
        posts.dies = 1
        with pytest.raises(KilledError):
            await runner(shop, posts).run(event_id)
        await update(shop, source.id, [{**RULE, "actions": [CREATE, {**POST, "content": "new"}]}])
        await runner(shop, posts).run(event_id)
        [message] = await shop.messages("order-1001")
        assert message["content"] == "Ann bought A, B for 59.90"

    async def test_many_workers_at_once_do_it_once(self, shop: Shop) -> None:
        await shop.source(rules=[{**RULE, "actions": [CREATE, POST, POST, POST]}])
        event_id = await shop.took(ORDER)

        async def work() -> None:
            for _ in range(3):
                try:
                    await runner(shop).run(event_id)
                except WaitingError:
                    continue

        await asyncio.gather(*(work() for _ in range(3)))
        assert len(await shop.messages("order-1001")) == 3
        assert len(await rooms(shop)) == 1
        event = await shop.event(event_id)
        assert {it.state for it in event.effects} == {"done"}
        assert event.status == "done"

    async def test_an_event_that_kills_its_worker_ends_as_a_dead_letter(self, shop: Shop) -> None:
        await shop.source(rules=[RULE])
        event_id = await shop.took(ORDER)
        posts = Dying(shop.house)
        posts.dies = 1000
        for _ in range(MOST_ATTEMPTS):
            with pytest.raises(KilledError):
                await runner(shop, posts).run(event_id)
        await runner(shop, posts).run(event_id)
        event = await shop.event(event_id)
        assert event.status == "dead"
        assert event.error == "It was begun too often and never ended."
        assert len(await shop.messages("order-1001")) == 1


class TestWaiting:
    async def test_a_part_that_is_away_is_waited_for(self, shop: Shop) -> None:
        second = {**RULE, "name": "second", "actions": [{**CREATE, "external_id": "other"}]}
        await shop.source(rules=[RULE, second])
        event_id = await shop.took(ORDER)
        posts = Dying(shop.house)
        posts.away = 1
        with pytest.raises(WaitingError):
            await runner(shop, posts).run(event_id)
        waiting = await shop.event(event_id)
        assert waiting.status == "running"
        # The other rule does not wait with it.
        assert [it.state for it in waiting.effects] == ["done", "planned", "done"]
        await runner(shop, posts).run(event_id)
        assert (await shop.event(event_id)).status == "done"

    async def test_a_message_waits_for_the_room_of_an_earlier_event(self, shop: Shop) -> None:
        await shop.source(
            rules=[
                RULE,
                {
                    "name": "paid",
                    "match": [{"path": "$.topic", "value": "paid"}],
                    "actions": [POST],
                },
            ]
        )
        paid = await shop.took({**ORDER, "topic": "paid"})
        assert not await shop.run(paid)
        await shop.handle(ORDER)
        assert await shop.run(paid)
        assert len(await shop.messages("order-1001")) == 2

    async def test_but_not_for_ever(self, shop: Shop) -> None:
        await shop.source(rules=[{**RULE, "actions": [POST, CREATE]}])
        event_id = await shop.took(ORDER)
        for _ in range(MOST_ATTEMPTS - 1):
            assert not await shop.run(event_id)
        assert await shop.run(event_id)
        event = await shop.event(event_id)
        assert event.status == "dead"
        assert [it.state for it in event.effects] == ["failed", "skipped"]
        assert event.error is not None
        assert "room.not_found" in event.error


class TestDeadLetters:
    async def test_a_missing_value_is_named_and_ends_its_rule_alone(self, shop: Shop) -> None:
        bad = {**RULE, "name": "bad", "actions": [{**POST, "content": "{{ $.nothing }}"}, CREATE]}
        await shop.source(rules=[bad, RULE])
        event = await shop.handle(ORDER)
        assert event.status == "dead"
        assert [it.state for it in event.effects] == ["failed", "skipped", "done", "done"]
        assert event.effects[0].error is not None
        assert "$.nothing" in event.effects[0].error

    async def test_a_replay_does_what_was_not_done_under_the_rules_of_now(self, shop: Shop) -> None:
        bad = {**POST, "content": "{{ $.nothing }}"}
        source = await shop.source(rules=[{**RULE, "actions": [CREATE, POST, bad]}])
        event = await shop.handle(ORDER)
        assert event.status == "dead"
        await update(
            shop, source.id, [{**RULE, "actions": [CREATE, POST, {**POST, "content": "mended"}]}]
        )
        assert await replay(shop, source.id, event.id) == 1
        # It is queued: whoever asks again changes nothing.
        assert await replay(shop, source.id, event.id) == 0
        await shop.run(event.id)
        after = await shop.event(event.id)
        assert (after.status, after.replays) == ("done", 1)
        said = [it["content"] for it in await shop.messages("order-1001")]
        assert said == ["Ann bought A, B for 59.90", "mended"]

    async def test_a_replay_of_what_was_done_and_never_noted_does_not_do_it_again(
        self, shop: Shop
    ) -> None:
        source = await shop.source(rules=[RULE])
        event_id = await shop.took(ORDER)
        posts = Dying(shop.house)
        posts.dies = 1000
        for _ in range(MOST_ATTEMPTS + 1):
            try:
                await runner(shop, posts).run(event_id)
            except KilledError:
                continue
        await update(shop, source.id, [{**RULE, "actions": [CREATE, {**POST, "content": "new"}]}])
        assert await replay(shop, source.id, event_id) == 1
        assert await shop.run(event_id)
        [message] = await shop.messages("order-1001")
        assert message["content"] == "Ann bought A, B for 59.90"
        assert (await shop.event(event_id)).effects[1].result["done_before"] is True

    async def test_all_dead_ones_of_a_source(self, shop: Shop) -> None:
        source = await shop.source(rules=[{**RULE, "actions": [{**POST, "content": "{{ $.x }}"}]}])
        dead = [await shop.handle({**ORDER, "n": n}) for n in range(3)]
        assert [it.id for it in await shop.events(source.id, status="dead")] == [
            it.id for it in reversed(dead)
        ]
        await update(shop, source.id, [])
        async with shop.house.container.sources.open_history() as history:
            found = await history.replay_dead(shop.master, ReplayDead(id=source.id, limit=2))
        assert found.replayed == 2
        jobs = await shop.house.rows(
            "select count(*) as n from job where client_id = :id and state = 'queued'",
            id=shop.master.client_id,
        )
        assert jobs[0]["n"] >= 2
        for event in dead[:2]:
            await shop.run(event.id)
            assert (await shop.event(event.id)).status == "ignored"


class TestLoops:
    async def test_what_came_round_too_often_starts_nothing(self, shop: Shop) -> None:
        await shop.source(rules=[RULE])
        event = await shop.handle(ORDER, Webhook_Origin="chatserver;hops=5")
        assert (event.status, event.hops, event.effects) == ("looped", 5, [])
        assert await rooms(shop) == []

    async def test_until_then_the_hops_are_carried_on(self, shop: Shop) -> None:
        await shop.source(rules=[RULE])
        await shop.handle(ORDER, Webhook_Origin="chatserver;hops=4")
        [message] = await shop.messages("order-1001")
        assert message["details"]["webhook"]["hops"] == 5


class TestTrying:
    async def tried(self, shop: Shop, source_id: UUID, **more: Any) -> Tried:
        async with shop.house.container.sources.open_history() as history:
            return await history.test(
                shop.master, TrySource.model_validate({"id": str(source_id), **more})
            )

    async def test_with_the_last_event_and_other_rules(self, shop: Shop) -> None:
        source = await shop.source()
        event_id = await shop.took(ORDER)
        no = {**RULE, "name": "no", "match": [*RULE["match"], {"path": "$.order.id", "value": 7}]}
        tried = await self.tried(shop, source.id, rules=[RULE, no])
        assert tried.event_id == event_id
        assert [(it.name, it.matched, it.unmet) for it in tried.rules] == [
            ("order", True, None),
            ("no", False, 1),
        ]
        assert tried.rules[0].actions[1].arguments["content"] == "Ann bought A, B for 59.90"
        assert await rooms(shop) == []
        assert (await shop.event(event_id)).effects == []

    async def test_a_request_of_ones_own_with_its_signature_explained(self, shop: Shop) -> None:
        source = await shop.source(rules=[RULE])
        headers = {"x-hub-signature-256": "sha256=00", "content-type": "application/json"}
        tried = await self.tried(shop, source.id, headers=headers, body='{"topic": 1}')
        assert tried.verification is not None
        assert (tried.verification.ok, tried.verification.reason) == (False, "wrong_secret")
        assert tried.rules[0].unmet == 0


class TestParts:
    async def test_what_a_server_has_not_is_refused_when_the_rule_is_made(self, shop: Shop) -> None:
        async def knows(_: UUID, __: UUID) -> bool:
            return True

        action = {"type": "ask_assistant", "room_id": "x", "content": "?", "sender_id": "a"}
        rules = stored([{"name": "r", "actions": [action]}])
        with pytest.raises(PayloadInvalidError) as refused:
            await RuleCheck(Parts(), knows)(shop.master.client_id, rules)
        assert refused.value.issues == (
            {"field": "rules.0.actions.0.type", "issue": "ask_assistant is not available yet"},
        )

    async def test_a_notification_is_sent_as_by_the_api_and_once(self, shop: Shop) -> None:
        ann = await shop.house.person(shop.master, "cust-7")
        tell = {
            "recipients": [{"user_id": "{{ $.customer.id }}"}],
            "channels": {"socket": {"title": "Order {{ $.order.name }}", "data": {"n": 1}}},
            "category": "orders",
        }
        await shop.source(
            rules=[{"name": "tell", "actions": [{"type": "notify", "notification": tell}]}]
        )
        event = await shop.handle(ORDER)
        assert event.status == "done", event.error
        await shop.run(event.id)
        found = await shop.house.rows(
            "select title, category from in_app_notification where user_id = :id", id=ann.user_id
        )
        assert found == [{"title": "Order #1001", "category": "orders"}]

    async def test_a_notification_that_is_none_is_a_dead_letter(self, shop: Shop) -> None:
        tell = {"recipients": [{"user_id": "{{ $.customer.id }}"}], "channels": {}}
        await shop.source(
            rules=[{"name": "tell", "actions": [{"type": "notify", "notification": tell}]}]
        )
        event = await shop.handle(ORDER)
        assert event.status == "dead"
        assert event.error is not None
        assert "payload.invalid" in event.error

    async def test_a_part_within_the_transaction_is_asked_once(self, shop: Shop) -> None:
        asked: list[dict[str, Any]] = []
        made = uuid4()

        async def notify(
            work: UnitOfWork, *, client_id: UUID, key: UUID, notification: dict[str, Any]
        ) -> UUID:
            asked.append(notification)
            return made

        rule = {
            "name": "tell",
            "actions": [{"type": "notify", "notification": {"to": "{{ $.customer.id }}"}}],
        }
        source = await shop.source()
        await shop.house.change(
            "update inbound_source set rules = cast(:rules as jsonb) where id = :id",
            id=source.id,
            rules=orjson.dumps([rule]).decode(),
        )
        event_id = await shop.took(ORDER)
        for _ in range(2):
            await runner(shop, parts=Parts(notify=notify)).run(event_id)
        [only] = asked
        assert only == {"to": "cust-7"}
        assert (await shop.event(event_id)).effects[0].result == {"notification_id": str(made)}


class TestAsk:
    RULES: Final = [
        {
            "name": "ask",
            "actions": [
                CREATE,
                {
                    "type": "ask_assistant",
                    "room_external_id": "order-{{ $.order.id }}",
                    "sender_id": "{{ $.customer.id }}",
                    "content": "When will {{ $.order.name }} arrive?",
                    "bot_id": "{{ $.bot }}",
                },
            ],
        }
    ]

    async def bot(self, shop: Shop) -> str:
        async with shop.house.container.documents.open_bots() as bots:
            return str((await bots.create(shop.master, CreateBot(name="Helper"))).id)

    async def said(self, shop: Shop) -> list[dict[str, Any]]:
        return await shop.house.rows(
            "select m.id, m.sender, m.sender_id, m.content, m.status, m.details from message m"
            " join room r on r.id = m.room_id where r.client_id = :client order by m.seq",
            client=shop.master.client_id,
        )

    async def test_a_bot_is_asked_in_a_member_s_name_and_once(self, shop: Shop) -> None:
        bot = await self.bot(shop)
        await shop.source(rules=self.RULES)
        event = await shop.handle({**ORDER, "bot": bot}, Webhook_Origin="chatserver;hops=1")
        assert event.status == "done", event.error
        await shop.run(event.id)
        question, answer = await self.said(shop)
        assert (question["sender"], question["sender_id"]) == ("user", "cust-7")
        assert question["content"] == "When will #1001 arrive?"
        assert (answer["sender"], answer["sender_id"], answer["status"]) == ("ai", bot, "pending")
        assert event.effects[1].result["message_id"] == str(answer["id"])
        # What follows from either message knows how often it came round.
        origin = {"source": "shop", "event_id": str(event.id), "hops": 2}
        assert question["details"] == {"webhook": origin}
        assert answer["details"] == {"webhook": {"hops": 2}}
        planned = await shop.house.rows(
            "select count(*) as n from job where kind = 'assistant.answer' and client_id = :client",
            client=shop.master.client_id,
        )
        assert planned == [{"n": 1}]

    async def test_within_its_transaction_the_worker_dies(self, shop: Shop) -> None:
        bot = await self.bot(shop)
        await shop.source(rules=self.RULES)
        event_id = await shop.took({**ORDER, "bot": bot})
        container = shop.house.container
        ask = Asker(container.assistant, container._users)

        async def dying(work: UnitOfWork, **asked: Any) -> UUID:
            await ask(work, **asked)
            raise KilledError

        with pytest.raises(KilledError):
            await runner(shop, parts=Parts(ask=dying)).run(event_id)
        assert await self.said(shop) == []
        await shop.run(event_id)
        assert len(await self.said(shop)) == 2

    async def test_a_busy_bot_is_waited_for(self, shop: Shop) -> None:
        bot = await self.bot(shop)
        await shop.source(rules=self.RULES)
        await shop.handle({**ORDER, "bot": bot})
        second = await shop.took({**ORDER, "bot": bot})
        assert not await shop.run(second)
        assert "assistant.busy" in str((await shop.event(second)).error)
        await shop.house.change(
            "update generation set status = 'complete' where client_id = :client",
            client=shop.master.client_id,
        )
        assert await shop.run(second)
        assert len(await self.said(shop)) == 4

    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"bot": "0198f4e2-0000-7000-8000-000000000000"}, "bot.not_found"),
            ({"bot": "Helper"}, "payload.invalid"),
            ({"bot": None}, "no value for $.bot"),
        ],
    )
    async def test_what_can_t_be_asked_is_a_dead_letter(
        self, shop: Shop, changed: dict[str, Any], code: str
    ) -> None:
        await shop.source(rules=self.RULES)
        event = await shop.handle({**ORDER, **changed})
        assert event.status == "dead"
        assert code in str(event.error)
        assert await self.said(shop) == []


class TestForward:
    async def test_one_delivery_in_the_effects_own_transaction(self, shop: Shop) -> None:
        made = await endpoint_of(shop.house, shop.master)
        forward = {**FORWARD, "endpoint_id": str(made), "event_type": "order.created"}
        await shop.source(rules=[{"name": "on", "actions": [forward, forward]}])
        event = await shop.handle(ORDER, Webhook_Origin="chatserver;hops=2")
        assert event.status == "done"
        await shop.run(event.id)
        sent = await shop.house.rows(
            "select e.type, e.data, e.hops from delivery d join webhook_event e"
            " on e.client_id = d.client_id and e.id = d.source_id where d.client_id = :id",
            id=shop.master.client_id,
        )
        said = {
            "source": "shop",
            "event_id": str(event.id),
            "external_id": event.external_id,
            "payload": ORDER,
        }
        assert sent == [{"type": "order.created", "data": said, "hops": 3}] * 2
        assert all(it.result["delivery_id"] for it in event.effects)

    async def test_to_an_endpoint_that_is_not_the_client_s_is_refused(self, shop: Shop) -> None:
        theirs = await endpoint_of(shop.house, await shop.house.tenant("Others"))
        source = await shop.source()
        for endpoint_id in (uuid4(), theirs):
            rule = {"name": "on", "actions": [CREATE, {**FORWARD, "endpoint_id": str(endpoint_id)}]}
            for attempt in (update(shop, source.id, [rule]), shop.source("b", rules=[rule])):
                with pytest.raises(PayloadInvalidError) as refused:
                    await attempt
                assert refused.value.issues == (
                    {
                        "field": "rules.0.actions.1.endpoint_id",
                        "issue": "is not one of your webhook endpoints",
                    },
                )

    async def test_to_an_endpoint_that_is_gone_by_then_is_a_dead_letter(self, shop: Shop) -> None:
        endpoint_id = await endpoint_of(shop.house, shop.master)
        rule = {"name": "on", "actions": [{**FORWARD, "endpoint_id": str(endpoint_id)}]}
        await shop.source(rules=[rule])
        async with shop.house.container.webhooks.open_endpoints() as endpoints:
            await endpoints.delete(shop.master, EndpointRef(id=endpoint_id))
        event = await shop.handle(ORDER)
        assert event.status == "dead"
        assert event.error is not None
        assert "endpoint.not_found" in event.error
