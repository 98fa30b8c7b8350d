"""After an erasure nothing of the person is left, and the report can prove it."""

import base64
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatserver.chat.schemas import (
    EditMessage,
    ListEvents,
    ListMessages,
    MessageRef,
    React,
    RoomRequest,
)
from chatserver.infra.idempotency import Held, Kept, KeyUse
from chatserver.infra.signing import Signed, is_signed
from chatserver.kernel.principal import Principal
from chatserver.privacy.erasing import Eraser
from chatserver.privacy.policies import canonical
from chatserver.privacy.schemas import PersonPath
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.schemas import BanMember, MemberRef
from chatserver.users.errors import UserErasingError, UserNotFoundError
from tests.support.everything import rows_with
from tests.support.people import House

CANARY = "c4n4ryOfAnn"
ANN = PersonPath(external_id="ann")


@pytest.fixture
async def master(house: House) -> Principal:
    return await house.tenant()


class Dies:
    """Answers in the middle of which the worker dies: the rooms are done, the person is not."""

    async def forget(self, *_: object) -> int:
        raise ConnectionError


async def erased(house: House, master: Principal, name: str = "ann") -> None:
    async with house.container.open_privacy() as privacy:
        asked = await privacy.erase(master, PersonPath(external_id=name))
    await house.container.privacy.eraser.erase(asked.id)


async def a_life(house: House, master: Principal) -> tuple[Principal, UUID]:
    """Ann says and does things that all carry the canary."""
    ann = await house.person(
        master,
        "ann",
        display_name=f"Ann {CANARY}",
        avatar_url=f"https://example.com/{CANARY}",
        metadata={"note": CANARY},
    )
    await house.login(master, "ann", device_id=f"phone-{CANARY}")
    bob = await house.person(master, "bob")
    room = await house.room(ann, "bob", title="Both")
    await house.say(
        ann,
        room.id,
        f"secret {CANARY}",
        attachments=[{"url": CANARY}],
        metadata={"x": CANARY},
        mentions=["bob"],
    )
    await house.say(bob, room.id, "hello ann", mentions=["ann", "bob"])
    return ann, room.id


async def test_no_row_of_any_table_holds_anything_of_the_person(
    house: House, master: Principal
) -> None:
    await a_life(house, master)
    assert set(await rows_with(house.address.admin_url, CANARY)) == {
        "app_user", "key_family", "message",
    }  # fmt: skip

    await erased(house, master)

    assert await rows_with(house.address.admin_url, CANARY) == {}
    # The external id stays where devices are told whom to purge, and in the proof. The text of
    # others is theirs.
    left = await rows_with(house.address.admin_url, "ann")
    assert set(left) == {"erasure", "message", "room_event"}
    assert all("messages.erased" in row for row in left["room_event"])
    assert all("hello ann" in row for row in left["message"])


async def test_the_room_reads_without_the_person_and_without_a_gap(
    house: House, master: Principal
) -> None:
    _, room_id = await a_life(house, master)
    bob = await house.container.identifier.identify(
        (await house.login(master, "bob")).key, door="rest"
    )

    await erased(house, master)

    catch_up = house.container.catch_up
    events = (await catch_up.events(bob, ListEvents(room_id=room_id))).events
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    fact = events[-1]
    assert (fact["type"], fact["data"]) == (
        "messages.erased", {"user_id": "ann", "up_to_seq": 3, "members_count": 1},
    )  # fmt: skip
    assert fact["actor"] == {"type": "system", "id": None}
    message = events[1]["data"]["message"]
    assert events[1]["superseded"] is True
    assert events[1]["actor"] == {"type": "user", "id": None}
    assert (message["content"], message["sender_id"]) == ("", None)
    assert message["metadata"] == {"erased": True}
    assert message["deleted_at"] is not None
    assert events[2]["data"]["message"]["mentions"] == ["bob"]
    assert events[0]["data"]["room"]["created_by"] is None

    for answer in (
        events[:-1],
        (await house.container.chat.list(bob, ListMessages(room_id=room_id))).model_dump_json(),
        (await catch_up.snapshot(bob, RoomRequest(room_id=room_id))).model_dump_json(),
    ):
        text = answer if isinstance(answer, str) else orjson.dumps(answer).decode()
        assert CANARY not in text
        assert '"ann"' not in text
    snapshot = await catch_up.snapshot(bob, RoomRequest(room_id=room_id))
    assert snapshot.members_count == 1
    assert [member.user_id for member in snapshot.members] == ["bob"]


async def test_keys_and_sockets_end_at_once_and_the_name_is_free_only_afterwards(
    house: House, master: Principal
) -> None:
    ann, _ = await a_life(house, master)
    async with house.container.open_privacy() as privacy:
        asked = await privacy.erase(master, ANN)
        again = await privacy.erase(master, ANN)
    assert asked.id == again.id
    assert [closing.user_id for closing in house.heard.closings] == [ann.user_id]
    assert await house.rows("select 1 from key_family where status = 'active' and user_id = :u",
                            u=ann.user_id) == []  # fmt: skip
    with pytest.raises(UserErasingError):
        await house.login(master, "ann")
    with pytest.raises(UserErasingError):
        await house.person(master, "ann")
    async with house.container.open_members() as members:
        with pytest.raises(UserNotFoundError):
            await members.remove(
                master, MemberRef(room_id=(await house.room(master)).id, user_id="ann")
            )

    await house.container.privacy.eraser.erase(asked.id)

    newcomer = await house.person(master, "ann")
    assert newcomer.user_id != ann.user_id
    async with house.container.open_privacy() as privacy:
        assert (await privacy.report(master, ANN)).state == "done"


async def test_the_report_is_signed_and_a_changed_one_is_not(
    house: House, master: Principal
) -> None:
    await a_life(house, master)
    await erased(house, master)

    async with house.container.open_privacy() as privacy:
        shown = await privacy.report(master, ANN)
    assert shown.report is not None
    assert shown.signature is not None
    assert shown.report["erased"] == {
        "keys": 2, "log_rows": 2, "mentions": 1, "messages": 1, "memberships": 1, "rooms": 1,
        "rooms_created": 1,
    }  # fmt: skip
    signed = Signed(
        base64.b64decode(shown.signature.value), base64.b64decode(shown.signature.public_key)
    )
    assert signed.public_key in house.container.privacy.signer.public_keys
    assert is_signed(canonical(shown.report), signed)
    assert not is_signed(canonical(shown.report | {"user_id": "bob"}), signed)


async def test_a_worker_that_takes_over_tells_no_room_twice(
    house: House, master: Principal
) -> None:
    _, room_id = await a_life(house, master)
    async with house.container.open_privacy() as privacy:
        asked = await privacy.erase(master, ANN)
    container = house.container
    dying = Eraser(
        open_work=container.open(lambda work: work),
        rooms=lambda work: RoomRepository(work.session),
        answers=Dies(),
        files=container.files.janitor,
        signer=container.privacy.signer,
        count_changed=lambda _, __: None,
    )
    with pytest.raises(ConnectionError):
        await dying.erase(asked.id)

    await house.container.privacy.eraser.erase(asked.id)
    await house.container.privacy.eraser.erase(asked.id)

    facts = await house.rows(
        "select seq from room_event where room_id = :room and type = 'messages.erased'",
        room=room_id,
    )
    assert facts == [{"seq": 4}]
    assert (await house.rows("select state from erasure"))[0]["state"] == "done"


async def test_kept_answers_forget_the_person_and_are_not_done_again(
    house: House, master: Principal
) -> None:
    await a_life(house, master)
    answers = house.container.answers
    own = KeyUse(master.client_id, "user:ann", "k1", b"h")
    about = KeyUse(master.client_id, "master:", "k2", b"h")
    other = KeyUse(master.client_id, "master:", "k3", b"h")
    for use, body in (
        (own, b'{"content": "mine"}'),
        (about, b'{"user": {"external_id": "ann", "display_name": "Ann"}}'),
        (other, b'{"user": {"external_id": "annette"}}'),
    ):
        held = await answers.begin(use)
        assert isinstance(held, Held)
        await answers.keep(held, 201, body)

    await erased(house, master)

    assert await answers.begin(about) == Kept(201, b'{"erased":true}')
    assert await answers.begin(other) == Kept(201, b'{"user": {"external_id": "annette"}}')
    assert isinstance(await answers.begin(own), Held)


async def test_a_person_of_another_client_with_the_same_name_keeps_everything(
    house: House, master: Principal
) -> None:
    await a_life(house, master)
    other = await house.tenant("Other")
    theirs = await house.person(other, "ann", display_name="Theirs")
    room = await house.room(theirs)
    await house.say(theirs, room.id, "still here", mentions=["ann"])

    await erased(house, master)

    kept = await house.rows("select content, mentions, sender_id from message where room_id = :r",
                            r=room.id)  # fmt: skip
    assert kept == [{"content": "still here", "mentions": ["ann"], "sender_id": "ann"}]
    issued = await house.login(other, "ann")
    known = await house.container.identifier.identify(issued.key, door="rest")
    assert known.user_id == theirs.user_id


async def test_the_audit_log_forgets_the_name_and_keeps_the_deed(
    house: House, master: Principal
) -> None:
    _, room_id = await a_life(house, master)
    async with house.container.open_members() as members:
        await members.remove(master, MemberRef(room_id=room_id, user_id="ann"))

    await erased(house, master)

    log = await house.rows("select actor, action, subject, details from audit order by id")
    assert [row["action"] for row in log] == [
        "client.create", "member.remove", "user.erase", "user.erased",
    ]  # fmt: skip
    assert log[1]["subject"] == "user:erased"
    assert log[1]["details"] == {}
    assert "ann" not in orjson.dumps([row["subject"] for row in log]).decode()


async def test_asking_again_begins_a_job_anew_that_was_given_up(
    house: House, master: Principal
) -> None:
    await a_life(house, master)
    async with house.container.open_privacy() as privacy:
        asked = await privacy.erase(master, ANN)
    await house.change("update job set state = 'failed' where kind = 'users.erase'")
    async with house.container.open_privacy() as privacy:
        assert (await privacy.erase(master, ANN)).id == asked.id
        assert (await privacy.erase(master, ANN)).id == asked.id
    planned = await house.rows(
        "select payload from job where kind = 'users.erase' and state = 'queued'"
    )
    assert planned == [{"payload": {"erasure_id": str(asked.id)}}]


async def test_versions_reactions_mentions_and_bans_go_with_the_person(
    house: House, master: Principal
) -> None:
    ann, room_id = await a_life(house, master)
    bob = await house.container.identifier.identify(
        (await house.login(master, "bob")).key, door="rest"
    )
    listed = await house.container.chat.list(bob, ListMessages(room_id=room_id))
    own, others = (UUID(str(message.id)) for message in listed.items)
    async with house.container.open_changes() as changes:
        await changes.edit(ann, EditMessage(message_id=own, content="harmless"))
        await changes.react(bob, React(message_id=own, emoji="👍"))
        for who in (ann, bob):
            await changes.react(who, React(message_id=others, emoji="🎉"))
        await changes.react(ann, React(message_id=others, emoji=CANARY))
        await changes.pin(ann, MessageRef(message_id=own))
    elsewhere = await house.room(bob, title="Without her")
    async with house.container.open_sanctions() as sanctions:
        await sanctions.ban(
            bob, BanMember(room_id=elsewhere.id, user_id="ann", reason=f"because {CANARY}")
        )
    kept = [
        orjson.loads(line) async for line in await house.container.privacy.exporter.export(ann, ANN)
    ]
    by_type: dict[str, list[dict[str, Any]]] = {}
    for line in kept:
        by_type.setdefault(line["type"], []).append(line)
    assert [each["content"] for each in by_type["past_version"]] == [f"secret {CANARY}"]
    assert {each["emoji"] for each in by_type["reaction"]} == {"🎉", CANARY}
    assert [each["reason"] for each in by_type["ban"]] == [f"because {CANARY}"]

    await erased(house, master)

    assert await rows_with(house.address.admin_url, CANARY) == {}
    [seen] = [
        message
        for message in (await house.container.chat.list(bob, ListMessages(room_id=room_id))).items
        if message.content
    ]
    assert seen.model_dump(mode="json")["reactions"] == [{"emoji": "🎉", "count": 1, "me": True}]
    left = await rows_with(house.address.admin_url, "ann")
    assert not {"mention", "reaction", "room_ban", "message_edit"} & set(left)
    state = await house.container.catch_up.snapshot(bob, RoomRequest(room_id=room_id))
    assert state.pins == []
