"""What must not be done: each its code, and nothing has changed."""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from uuid import UUID

import orjson
import pytest

from chatserver.chat.changes import EMOJI_PER_MESSAGE, EMOJI_PER_USER
from chatserver.chat.schemas import EditMessage, MarkRead, MessageRef, React
from chatserver.kernel.errors import DomainError, PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.operations import build_registry
from chatserver.rooms.schemas import BanMember, CreateRoom, MuteMember, RoomRef, UpdateRoom
from chatserver.transport.registry import parse
from chatserver.users.errors import UserNotFoundError
from tests.support.talk import Talk

Try: TypeAlias = Callable[[], Awaitable[Any]]
TABLES = ("room", "member", "message", "message_edit", "room_event", "reaction", "mention")
LONG = "x" * 20_001


async def everything(talk: Talk) -> dict[str, list[str]]:
    return {
        table: [
            row["row"]
            for row in await talk.rows(f"select to_jsonb(t)::text as row from {table} t order by 1")
        ]
        for table in TABLES
    }


async def test_each_has_its_code_and_changes_nothing(  # noqa: PLR0915 - a table
    talk: Talk, master: Principal
) -> None:
    alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
    await talk.run("""update client set settings = '{"chat": {"edit_window_s": 60}}'""")
    mallory = await talk.user(await talk.client("other"), "mallory")
    theirs = await talk.room(mallory)
    stolen = await talk.send(mallory, theirs.id, "theirs")
    room = await talk.room(alice, bob, carol)
    mine = await talk.send(alice, room.id, "mine")
    old = await talk.send(alice, room.id, "old")
    await talk.run(
        "update message set created_at = now() - interval '61 s' where id = $1", old.message.id
    )
    dead = await talk.send(alice, room.id, "dead")
    loved = await talk.send(alice, room.id, "loved")
    container = talk.container

    async def change(name: str, who: Principal, command: Any) -> None:
        async with container.open_changes() as changes:
            await getattr(changes, name)(who, command)

    await change("delete", alice, MessageRef(message_id=dead.message.id))
    for number in range(EMOJI_PER_USER):
        await change("react", bob, React(message_id=loved.message.id, emoji=f"e{number}"))
    many = [{"emoji": f"m{number}", "count": 1} for number in range(EMOJI_PER_MESSAGE)]
    await talk.run("update message set reactions = $2 where id = $1", old.message.id, _json(many))
    deleted, muted, slow, closed, archived = [
        (await talk.room(alice, bob, carol, title=name)).id
        for name in ("deleted", "muted", "slow", "closed", "archived")
    ]
    lost = await talk.send(alice, deleted, "lost")
    async with container.open_rooms() as rooms:
        await rooms.delete(alice, RoomRef(room_id=deleted))
        await rooms.update(alice, UpdateRoom(room_id=slow, slow_mode_s=60))
        await rooms.update(alice, UpdateRoom(room_id=closed, post_role="moderator"))
        await rooms.update(alice, UpdateRoom(room_id=archived, is_archived=True))
    await talk.send(bob, slow)
    async with container.open_sanctions() as sanctions:
        await sanctions.mute(alice, MuteMember(room_id=muted, user_id="bob"))
        await sanctions.ban(alice, BanMember(room_id=muted, user_id="carol"))
    await talk.send(alice, room.id, "first", client_msg_id="same")

    def send(who: Principal, to: UUID, **more: Any) -> Try:
        return lambda: talk.send(who, to, **more)

    def edit(who: Principal, what: Any, content: str = "new", **more: Any) -> Try:
        command = EditMessage(message_id=what.message.id, content=content, **more)
        return lambda: change("edit", who, command)

    def react(who: Principal, what: Any, emoji: str = "👍") -> Try:
        return lambda: change("react", who, React(message_id=what.message.id, emoji=emoji))

    def to(name: str, who: Principal, what: Any) -> Try:
        return lambda: change(name, who, MessageRef(message_id=what.message.id))

    def mark(who: Principal, seq: int) -> Try:
        return lambda: container.reads.mark(who, MarkRead(room_id=room.id, seq=seq))

    foreign_file = {"file_id": str(uuid7())}
    cases: list[tuple[str, Try]] = [
        ("message.too_long", send(alice, room.id, content=LONG)),
        ("message.too_long", send(alice, room.id, content="€" * 20_000 + "x")),
        ("message.too_long", edit(alice, mine, LONG)),
        ("idempotency.conflict", send(alice, room.id, content="2nd", client_msg_id="same")),
        ("message.not_found", send(alice, room.id, reply_to=stolen.message.id)),
        ("file.not_found", send(alice, room.id, attachments=[foreign_file])),
        ("message.not_yours", edit(bob, mine)),
        ("message.not_yours", to("delete", bob, mine)),
        ("message.conflict", edit(alice, mine, if_version=7)),
        ("message.edit_window", edit(alice, old)),
        ("message.not_found", edit(alice, dead)),
        ("message.not_found", react(alice, dead)),
        ("message.not_found", to("pin", alice, dead)),
        ("message.too_many_reactions", react(bob, loved, "one-more")),
        ("message.too_many_reactions", react(alice, old, "one-more")),
        ("message.not_found", edit(mallory, mine)),
        ("message.not_found", react(mallory, mine)),
        ("message.not_found", to("delete", mallory, mine)),
        ("room.not_found", send(mallory, room.id)),
        ("room.not_found", send(alice, deleted)),
        ("message.not_found", edit(alice, lost)),
        ("message.not_found", react(alice, lost)),
        ("room.muted", send(bob, muted)),
        ("room.not_member", send(carol, muted)),
        ("message.slow_mode", send(bob, slow)),
        ("room.read_only", send(bob, closed)),
        ("room.archived", send(alice, archived)),
        ("epoch.mismatch", mark(alice, 10_000)),
        ("room.not_found", lambda: container.reads.mark(mallory, MarkRead(room_id=room.id))),
    ]
    unknown = {"type": "group", "member_ids": ["bob", "nobody"]}

    async def create() -> None:
        async with container.open_rooms() as rooms:
            await rooms.create(alice, CreateRoom.model_validate(unknown))

    before = await everything(talk)
    shown = len(talk.shown.facts)
    fields: dict[str, list[list[str]]] = defaultdict(list)
    for code, attempt in cases:
        with pytest.raises(DomainError) as refused:
            await attempt()
        assert refused.value.code == code
        fields[code].append([issue["field"] for issue in refused.value.issues])
    assert fields["message.too_long"] == [["content"]] * 3
    assert fields["file.not_found"] == [["attachments.0.file_id"]]
    # Of what is replied to; what is edited or reacted to is named by the path.
    assert fields["message.not_found"].count(["reply_to"]) == 1
    with pytest.raises(UserNotFoundError) as unknown_person:
        await create()
    assert [issue["field"] for issue in unknown_person.value.issues] == ["member_ids.1"]
    assert await everything(talk) == before
    assert len(talk.shown.facts) == shown
    # Naming a stranger, or nobody at all, is no refusal: it tells nobody who exists.
    sent = await talk.send(alice, room.id, mentions=["mallory", "nobody"])
    assert sent.message.mentions == ["mallory", "nobody"]
    rows = await talk.rows("select user_id from member m where room_id = $1", room.id)
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("command", "more", "field"),
    [
        ("message.edit", {"content": "x", "attachments": []}, "attachments"),
        ("message.edit", {"content": "x", "sender_id": "bob"}, "sender_id"),
        ("message.edit", {"content": ""}, "content"),
        ("message.edit", {}, "$"),
        ("message.react", {"emoji": "two words"}, "emoji"),
        ("message.react", {"emoji": "\u200d"}, "emoji"),
    ],
)
def test_what_a_command_does_not_know_is_named(
    command: str, more: dict[str, Any], field: str
) -> None:
    """Attachments are what a message was sent with: an edit changes text, mentions, metadata."""
    model = build_registry().operations[command].request
    with pytest.raises(PayloadInvalidError) as refused:
        parse(model, {"message_id": str(uuid7()), **more})
    assert [issue["field"] for issue in refused.value.issues] == [field]


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
