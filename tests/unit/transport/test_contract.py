"""The contract's table of commands and facts, against what there is."""

from typing import Final

import pytest

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.operations import NAMESPACES, build_registry
from chatserver.transport.registry import parse

REGISTRY: Final = build_registry()
# By namespace: command, members that it takes (those with ? may be left out).
COMMANDS: Final = {
    "/rooms": """
        room.create type title? external_id? member_ids? history? metadata?
        room.get room_id
        room.list page? size?
        room.update room_id title? metadata?
        room.join room_id
        room.leave room_id
        room.invite room_id user_id? user_ids? role?
        room.remove room_id user_id
        room.deactivate room_id
        room.reactivate room_id
        room.watch room_id
        room.unwatch room_id
        presence.set status
        presence.watch user_ids? room_ids?
    """,
    "/chat": """
        sync cursor? rooms?
        room.replay room_id epoch? after_seq limit?
        message.send room_id content client_msg_id reply_to? attachments? mentions? metadata?
        message.edit message_id content? if_version?
        message.delete message_id
        message.react message_id emoji
        message.unreact message_id emoji
        message.pin message_id
        message.unpin message_id
        message.history room_id after_seq? before_seq? limit?
        message.search q room_id? from_? to?
        read.mark room_id seq?
        read.unmark room_id
        room.watch room_id
        room.unwatch room_id
        typing.start room_id
        typing.stop room_id
        assistant.ask room_id content client_msg_id bot_id?
        assistant.cancel message_id
        assistant.resume message_id
        assistant.catch_up message_id generation? index?
    """,
    "/notifications": """
        notification.list
        notification.ack
        notification.read
        notification.read_all
    """,
}
EACH: Final = {"auth.refresh": {"token"}, "auth.confirm": {"key_id"}}
# With their data; those after the bar have a place in the log.
FACTS: Final = {
    "/rooms": "presence.changed |"
    " room.created room.updated room.deactivating room.deactivated room.reactivated room.deleted"
    " member.joined member.left member.updated",
    "/chat": "read.updated typing.state message.sources message.delta message.progress sync.tips |"
    " message.created message.updated message.deleted messages.erased reaction.changed pin.changed"
    " room.created room.updated room.deactivating room.deactivated room.reactivated room.deleted"
    " member.joined member.left member.updated",
    "/notifications": "notification.created notification.read notification.unread |",
}
DATA: Final = {
    "message.": {"message"},
    "reaction.changed": {"message_id", "emoji", "user_id", "op", "counts"},
    "pin.changed": {"message_id", "pinned"},
    "member.": {"user_id", "role", "members_count"},
    "room.": {"room"},
    "read.updated": {"user_id", "read_seq", "unread", "total_unread"},
    "typing.state": {"users", "count"},
    "messages.erased": {"user_id", "up_to_seq"},
    "message.sources": {"message_id", "sources"},
    "message.delta": {"message_id", "generation", "index", "text"},
    "message.progress": {"message_id", "generation", "index", "status"},
    "auth.rotated": {"key", "key_id", "expires_at"},
    "session.ready": {
        "session_id", "resumed", "server_time", "user", "auth", "limits", "features",
    },
    "session.closing": {"code", "reason", "reconnect", "after_ms"},
}  # fmt: skip
ANSWERS: Final = {
    "sync": {"cursor", "rooms_version", "rooms", "joined", "removed", "more"},
    "room.replay": {"events", "last_seq", "complete"},
    "event.list": {"events", "last_seq", "complete"},
    "message.history": {"items", "has_more"},
    "message.send": {"message", "duplicate"},
    "assistant.ask": {"message_id", "question"},
    "room.snapshot": {
        "room", "me", "members", "members_count", "messages", "pins", "reads", "epoch", "as_of_seq",
    },
}  # fmt: skip
LINES: Final = [
    (namespace, *line.split())
    for namespace, table in COMMANDS.items()
    for line in table.strip().splitlines()
]


@pytest.mark.parametrize("line", LINES, ids=[" ".join(line[:2]) for line in LINES])
def test_each_command_has_its_name_and_takes_what_it_is_to(line: tuple[str, ...]) -> None:
    namespace, name, *members = line
    found = REGISTRY.command(namespace, name)
    assert found is not None
    fields = found.request.model_fields
    assert {member.rstrip("?") for member in members} <= set(fields)
    if members:
        needed = {field for field, its in fields.items() if its.is_required()}
        assert needed == {member for member in members if not member.endswith("?")}


def test_what_every_namespace_has() -> None:
    for namespace in NAMESPACES:
        for name, needed in EACH.items():
            found = REGISTRY.command(namespace, name)
            assert found is not None
            fields = found.request.model_fields
            assert {field for field, its in fields.items() if its.is_required()} == needed
        for fact in ("session.ready", "session.closing", "auth.rotated", "auth.expiring"):
            assert namespace in REGISTRY.facts[fact].namespaces


@pytest.mark.parametrize("namespace", FACTS)
def test_each_fact_has_its_place(namespace: str) -> None:
    passing, logged = [part.split() for part in FACTS[namespace].split("|")]
    for name in (*passing, *logged):
        fact = REGISTRY.facts[name]
        assert namespace in fact.namespaces, name
        assert fact.sequenced is (name in logged), name


@pytest.mark.parametrize("name", DATA)
def test_facts_carry_what_they_are_to(name: str) -> None:
    named = [
        fact
        for fact in REGISTRY.facts.values()
        if fact.name == name
        or (name.endswith(".") and fact.name.startswith(name) and fact.sequenced)
    ]
    assert named
    for fact in named:
        assert DATA[name] <= set(fact.data_model.model_fields), fact.name


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_have_the_members_they_are_to(name: str) -> None:
    assert ANSWERS[name] == set(REGISTRY.operations[name].response.model_fields)


def _times() -> list[tuple[str, str]]:
    """Every operation that takes a time or a date, and the member that it is."""
    found = []
    for name, operation in REGISTRY.operations.items():
        operation.request.model_rebuild()
        for member, schema in operation.request.model_json_schema().get("properties", {}).items():
            formats = {each.get("format") for each in (schema, *schema.get("anyOf", ()))}
            found += [(name, member)] * bool(formats & {"date-time", "date"})
    return found


@pytest.mark.parametrize(("name", "member"), _times())
def test_json_has_no_times_so_they_are_taken_as_text(name: str, member: str) -> None:
    request, fields = REGISTRY.operations[name].request, []
    for text in ("2026-01-01", "2026-01-01T00:00:00Z"):
        with pytest.raises(PayloadInvalidError) as refused:
            parse(request, {member: text, "what is not there": 1})
        fields.append({issue["field"] for issue in refused.value.issues})
    assert member not in fields[0] & fields[1]
