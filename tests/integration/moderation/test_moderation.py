from typing import Any
from uuid import UUID, uuid4

import pytest

from chatserver.chat.errors import MessageNotFoundError, MessageRejectedError
from chatserver.chat.schemas import EditMessage
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.moderation.errors import FlagNotFoundError, RuleNotFoundError
from chatserver.moderation.schemas import (
    CreateRule,
    FlagMessage,
    FlagOut,
    ListFlags,
    ResolveFlag,
    RuleOut,
    RuleRef,
    TryRules,
    UpdateRule,
)
from tests.support.talk import Talk


async def ruled(talk: Talk, master: Principal, **members: Any) -> RuleOut:
    command = CreateRule.model_validate({"kind": "word", "values": ["dolt"]} | members)
    async with talk.container.open_rules() as rules:
        return await rules.create(master, command)


async def flags(talk: Talk, who: Principal, **members: Any) -> list[FlagOut]:
    page = await talk.container.flags.list(who, ListFlags.model_validate(members))
    assert page.total == len(page.items)
    return page.items


class TestRules:
    async def test_what_is_rejected_is_not_there(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        rule = await ruled(talk, master, action="reject")
        with pytest.raises(MessageRejectedError) as refused:
            await talk.send(alice, room.id, "you Dolt")
        assert refused.value.details == {"rule_id": str(rule.id)}
        assert refused.value.issues[0]["field"] == "content"
        assert await talk.rows("select 1 from message") == []
        assert len(await talk.log(room.id)) == 1

    async def test_masked_is_what_everyone_sees_and_a_retry_is_known(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await ruled(talk, master, action="mask")
        first = await talk.send(alice, room.id, "you dolt", client_msg_id="m1")
        again = await talk.send(alice, room.id, "you dolt", client_msg_id="m1")
        assert (first.message.content, again.message.content) == ("you ***", "you ***")
        assert again.duplicate
        assert talk.shown.of(room.id)[-1]["data"]["message"]["content"] == "you ***"

    async def test_edits_are_held_against_them_too(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        sent = (await talk.send(alice, room.id, "hello")).message
        await ruled(talk, master, action="mask")
        await ruled(talk, master, action="reject", values=["worse"])
        edit = EditMessage(message_id=sent.id, content="hello dolt", if_version=1)
        for _ in range(2):
            async with talk.container.open_changes() as changes:
                message = (await changes.edit(alice, edit)).message
            assert (message.content, message.version) == ("hello ***", 2)
        with pytest.raises(MessageRejectedError):
            async with talk.container.open_changes() as changes:
                await changes.edit(alice, EditMessage(message_id=sent.id, content="worse"))

    async def test_they_hold_for_their_client_and_rooms_alone(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        strict, loose = await talk.room(alice), await talk.room(alice)
        await ruled(talk, master, action="reject", room_ids=[strict.id])
        await talk.send(alice, loose.id, "dolt")
        with pytest.raises(MessageRejectedError):
            await talk.send(alice, strict.id, "dolt")
        other = await talk.client("other")
        mallory = await talk.user(other, "mallory")
        elsewhere = await talk.room(mallory)
        await talk.send(mallory, elsewhere.id, "dolt")

    async def test_changed_and_deleted_they_are_so_at_once(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        rule = await ruled(talk, master, action="reject")
        async with talk.container.open_rules() as rules:
            await rules.update(master, UpdateRule(rule_id=rule.id, values=["oaf"]))
        await talk.send(alice, room.id, "dolt")
        with pytest.raises(MessageRejectedError):
            await talk.send(alice, room.id, "oaf")
        async with talk.container.open_rules() as rules:
            await rules.delete(master, RuleRef(rule_id=rule.id))
        await talk.send(alice, room.id, "oaf")

    async def test_bad_ones_name_the_field(self, talk: Talk, master: Principal) -> None:
        with pytest.raises(PayloadInvalidError) as refused:
            await ruled(talk, master, kind="pattern", values=["a", "(a"], action="mask")
        assert refused.value.issues[0]["field"] == "values.1"
        rule = await ruled(talk, master, action="mask")
        other = await talk.client("other")
        for who, rule_id in ((other, rule.id), (master, uuid4())):
            with pytest.raises(RuleNotFoundError):
                async with talk.container.open_rules() as rules:
                    await rules.delete(who, RuleRef(rule_id=rule_id))

    async def test_they_can_be_tried(self, talk: Talk, master: Principal) -> None:
        mask = await ruled(talk, master, action="mask")
        flag = await ruled(talk, master, action="flag", values=["oaf"])
        no = await ruled(talk, master, action="reject", values=["worse"])
        async with talk.container.open_rules() as rules:
            tried = [
                await rules.attempt(master, TryRules(content=content))
                for content in ("hi", "dolt", "dolt oaf", "worse")
            ]
        assert [(each.verdict, each.content, each.rule_ids) for each in tried] == [
            ("passes", "hi", []),
            ("masked", "***", [mask.id]),
            ("flagged", "*** oaf", [mask.id, flag.id]),
            ("rejected", None, [no.id]),
        ]


class TestFlags:
    async def test_a_rule_flags_what_it_lets_through(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        rule = await ruled(talk, master, action="flag")
        sent = (await talk.send(alice, room.id, "dolt", client_msg_id="m1")).message
        await talk.send(alice, room.id, "dolt", client_msg_id="m1")
        [flag] = await flags(talk, master)
        assert (flag.message_id, flag.rule_id, flag.message["content"]) == (
            UUID(str(sent.id)),
            rule.id,
            "dolt",
        )

    async def test_a_message_that_was_refused_leaves_none(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice)
        await ruled(talk, master, action="flag")
        with pytest.raises(Exception, match="room"):
            await talk.send(bob, room.id, "dolt")
        assert await flags(talk, master) == []

    async def test_moderators_settle_what_members_flag(self, talk: Talk, master: Principal) -> None:
        owner, bob, carol, stranger = await talk.users(master, "owner", "bob", "carol", "stranger")
        room = await talk.room(owner, bob, carol)
        sent = (await talk.send(bob, room.id, "rude")).message
        service = talk.container.flags
        for who, reason in ((carol, "rude"), (carol, "very rude"), (master, None)):
            await service.flag(who, FlagMessage(message_id=sent.id, reason=reason))
        with pytest.raises(MessageNotFoundError):
            await service.flag(stranger, FlagMessage(message_id=sent.id))
        assert [(each.flagged_by, each.reason) for each in await flags(talk, owner)] == [
            ("carol", "rude"),
            (None, None),
        ]
        assert await flags(talk, carol) == []
        flag = (await flags(talk, owner))[0]
        for who in (carol, stranger, await talk.client("other")):
            with pytest.raises(FlagNotFoundError):
                await service.resolve(who, ResolveFlag(flag_id=flag.id, action="delete"))
        await service.resolve(owner, ResolveFlag(flag_id=flag.id, action="delete"))
        assert await flags(talk, owner) == []
        settled = await flags(talk, owner, state="deleted")
        assert [each.resolved_by for each in settled] == ["owner", "owner"]
        assert settled[0].message["content"] == ""
        assert (await talk.log(room.id))[-1]["type"] == "message.deleted"

    async def test_one_that_is_unknown(self, talk: Talk, master: Principal) -> None:
        with pytest.raises(FlagNotFoundError):
            await talk.container.flags.resolve(
                master, ResolveFlag(flag_id=uuid7(), action="dismiss")
            )
