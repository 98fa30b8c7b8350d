from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chatserver.chat.schemas import EditMessage, MessageRef
from chatserver.clients.schemas import OwnClientUpdate
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.privacy.schemas import PersonPath
from chatserver.rooms.errors import RoomNotFoundError
from chatserver.rooms.schemas import InviteMembers, MemberRef, RoomRef
from chatserver.search.schemas import SearchMessages, SearchResults
from tests.support.files import Shelf


async def search(shelf: Shelf, who: Principal, q: str, **more: Any) -> SearchResults:
    return await shelf.house.container.search.service.search(
        who, SearchMessages.model_validate({"q": q, **more})
    )


async def found(shelf: Shelf, who: Principal, q: str, **more: Any) -> list[str]:
    """Index what there is, then give the texts that are found."""
    await shelf.house.container.search.indexer.catch_up(back_s=60)
    return [hit.message.content for hit in (await search(shelf, who, q, **more)).items]


async def test_words_phrases_beginnings_and_what_must_not_be_there(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    for content in ("The red fox jumps", "A fox so red", "Redwood forest", "no colours here"):
        await shelf.house.say(shelf.ann, room.id, content)
    for q, texts in {
        "fox": {"The red fox jumps", "A fox so red"},
        "FOX Red": {"The red fox jumps", "A fox so red"},
        '"red fox"': {"The red fox jumps"},
        "red*": {"The red fox jumps", "A fox so red", "Redwood forest"},
        "fox -jumps": {"A fox so red"},
        'fox -"red fox"': {"A fox so red"},
        "wood": set(),
        '"unclosed phrase': set(),
        "fox & | ! <-> ( ' \\ :* \x01": {"The red fox jumps", "A fox so red"},
    }.items():
        assert set(await found(shelf, shelf.ann, q)) == texts, q


@pytest.mark.parametrize("q", ["-fox", "-fox -red", "a*", '""', "  ", "w " * 21])
async def test_a_query_that_means_nothing_is_refused(shelf: Shelf, q: str) -> None:
    with pytest.raises(PayloadInvalidError) as said:
        await search(shelf, shelf.ann, q)
    assert said.value.issues[0]["field"] == "q"


async def test_matches_are_shown_as_text_and_not_as_markup(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    content = "<b>fox</b> & \x02fake\x03 fox " + "word " * 200
    await shelf.house.say(shelf.ann, room.id, content)
    await found(shelf, shelf.ann, "fox")
    [hit] = (await search(shelf, shelf.ann, "fox")).items
    assert [piece.text for piece in hit.highlights if piece.match] == ["fox", "fox"]
    text = "".join(piece.text for piece in hit.highlights)
    assert "fox</b> & fake fox word" in text
    assert len(text) < 400


async def test_more_of_it_ranks_higher_and_the_newest_can_come_first(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    for content in ("fox fox fox", "a fox among many other words of no interest", "fox"):
        await shelf.house.say(shelf.ann, room.id, content)
    assert (await found(shelf, shelf.ann, "fox"))[0] == "fox fox fox"
    assert await found(shelf, shelf.ann, "fox", sort="newest") == [
        "fox", "a fox among many other words of no interest", "fox fox fox",
    ]  # fmt: skip


async def test_nobody_finds_what_he_may_not_read(shelf: Shelf) -> None:
    house = shelf.house
    mallory = await house.person(shelf.master, "mallory")
    other = await house.tenant("Other")
    eve = await house.person(other, "ann")
    room = await house.room(shelf.ann, "bob", history="joined")
    await house.say(shelf.ann, room.id, "early fox")
    assert await found(shelf, shelf.ann, "fox") == ["early fox"]
    assert await found(shelf, shelf.master, "fox") == ["early fox"]
    for stranger in (mallory, eve, other):
        assert await found(shelf, stranger, "fox") == []
        with pytest.raises(RoomNotFoundError):
            await search(shelf, stranger, "fox", room_id=str(room.id))
    async with house.container.open_members() as members:
        await members.invite(shelf.ann, InviteMembers(room_id=room.id, user_id="mallory"))
    await house.say(shelf.ann, room.id, "late fox")
    assert await found(shelf, mallory, "fox") == ["late fox"]
    assert await found(shelf, mallory, "fox", room_id=str(room.id)) == ["late fox"]
    async with house.container.open_members() as members:
        await members.remove(shelf.ann, MemberRef(room_id=room.id, user_id="bob"))
    assert await found(shelf, shelf.bob, "fox") == []
    async with house.container.open_rooms() as rooms:
        await rooms.delete(shelf.ann, RoomRef(room_id=room.id))
    assert await found(shelf, shelf.master, "fox") == []


async def test_a_public_channel_is_found_in_by_name_alone(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, type="channel")
    await shelf.house.say(shelf.ann, room.id, "fox")
    # Bob is in a room of his own, too: whoever is in none finds nothing in any case.
    await shelf.house.room(shelf.bob)
    assert await found(shelf, shelf.bob, "fox") == []
    assert await found(shelf, shelf.bob, "fox", room_id=str(room.id)) == ["fox"]


async def test_edited_deleted_and_erased_words_are_gone_at_once(shelf: Shelf) -> None:
    house = shelf.house
    room = await house.room(shelf.ann, "bob")
    edited = await house.say(shelf.ann, room.id, "fox one")
    deleted = await house.say(shelf.ann, room.id, "fox two")
    await house.say(shelf.bob, room.id, "fox three")
    assert len(await found(shelf, shelf.ann, "fox")) == 3
    async with house.container.open_changes() as changes:
        await changes.edit(
            shelf.ann, EditMessage(message_id=edited.message.id, content="hound one")
        )
    async with house.container.open_changes() as changes:
        await changes.delete(shelf.ann, MessageRef(message_id=deleted.message.id))
    # Before the indexer has looked.
    texts = [hit.message.content for hit in (await search(shelf, shelf.ann, "fox")).items]
    assert texts == ["fox three"]
    assert await found(shelf, shelf.ann, "hound") == ["hound one"]
    assert len(await house.rows("select message_id from message_search")) == 2
    async with house.container.open_privacy() as privacy:
        asked = await privacy.erase(shelf.master, PersonPath(external_id="bob"))
    await house.container.privacy.eraser.erase(asked.id)
    assert len(await house.rows("select message_id from message_search")) == 1
    assert await found(shelf, shelf.ann, "fox") == []


async def test_filters_narrow_the_search(shelf: Shelf) -> None:
    room, other = await shelf.house.room(shelf.ann, "bob"), await shelf.house.room(shelf.ann)
    file = await shelf.file(shelf.ann)
    await shelf.house.say(shelf.ann, room.id, "fox a")
    await shelf.house.say(shelf.bob, room.id, "fox b", attachments=[{"url": "https://example.com"}])
    await shelf.house.say(shelf.ann, other.id, "fox c", attachments=[{"file_id": str(file.id)}])
    for filters, texts in (
        ({"room_id": str(room.id)}, {"fox a", "fox b"}),
        ({"sender_id": "bob"}, {"fox b"}),
        ({"sender_id": "nobody"}, set()),
        ({"has_attachment": True}, {"fox b", "fox c"}),
        ({"has_attachment": False}, {"fox a"}),
        ({"sender_id": "ann", "has_attachment": True}, {"fox c"}),
        ({"from": datetime.now(UTC) - timedelta(minutes=5)}, {"fox a", "fox b", "fox c"}),
        ({"from": datetime.now(UTC) + timedelta(minutes=5)}, set()),
        ({"to": datetime.now(UTC) - timedelta(minutes=5)}, set()),
    ):
        assert set(await found(shelf, shelf.ann, "fox", **filters)) == texts, filters


@pytest.mark.parametrize("sort", ["relevance", "newest"])
async def test_pages_follow_each_other_without_a_gap_or_a_repeat(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    # Small enough that the walk goes through windows of time, and over two ranked lists.
    monkeypatch.setattr("chatserver.search.service.RANKED", 10)
    monkeypatch.setattr("chatserver.search.service.FEW", 5)
    room = await shelf.house.room(shelf.ann, "bob")
    sent = [
        (await shelf.house.say(shelf.ann, room.id, "fox " * (n % 3 + 1) + str(n))).message.id
        for n in range(25)
    ]
    await shelf.house.change(
        "update message m set created_at = created_at - (27 - seq) * interval '9 days'"
    )
    await shelf.house.container.search.indexer.catch_up(back_s=60)
    seen: list[Any] = []
    cursor: str | None = None
    while True:
        page = await search(
            shelf, shelf.ann, "fox", sort=sort, limit=4, **({"cursor": cursor} if cursor else {})
        )
        seen += [hit.message.id for hit in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        # What is sent meanwhile does not push anything to the next page.
        await shelf.house.say(shelf.ann, room.id, "fox meanwhile")
        await shelf.house.container.search.indexer.catch_up(back_s=60)
    assert sorted(map(str, seen)) == sorted(map(str, sent))
    if sort == "newest":
        assert [*map(str, seen)] == [*map(str, sent[::-1])]


async def test_a_cursor_is_of_one_caller_and_one_search(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    for n in range(3):
        await shelf.house.say(shelf.ann, room.id, f"fox {n}")
    await found(shelf, shelf.ann, "fox")
    cursor = (await search(shelf, shelf.ann, "fox", limit=1)).next_cursor
    assert len((await search(shelf, shelf.ann, "fox", cursor=cursor)).items) == 2
    for who, q in ((shelf.bob, "fox"), (shelf.ann, "red")):
        with pytest.raises(PayloadInvalidError):
            await search(shelf, who, q, cursor=cursor)


async def test_a_language_knows_forms_of_words_and_beginnings_still_work(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    await shelf.house.say(shelf.ann, room.id, "The foxes were running")
    assert await found(shelf, shelf.ann, "fox run") == []
    async with shelf.house.container.open_clients() as clients:
        changed = await clients.update_own(shelf.master, OwnClientUpdate(search_language="english"))
    assert changed.search_language == "english"
    jobs = await shelf.house.rows("select client_id from job where kind = 'search.reindex'")
    assert [job["client_id"] for job in jobs] == [shelf.master.client_id]
    assert await shelf.house.container.search.indexer.again(shelf.ann.client_id) == 1
    for q in ("fox run", "runs", "runni*", '"foxes were running"', "the foxes"):
        assert await found(shelf, shelf.ann, q) == ["The foxes were running"], q
    assert await found(shelf, shelf.ann, "the") == []


async def test_many_rooms_are_no_different(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatserver.search.policies.NAMED_ROOMS", 2)
    for n in range(4):
        room = await shelf.house.room(shelf.ann, "bob")
        await shelf.house.say(shelf.ann, room.id, f"fox {n}")
    assert len(await found(shelf, shelf.ann, "fox")) == 4
    assert len(await found(shelf, shelf.bob, "fox")) == 4


async def test_the_indexer_goes_on_where_it_stood(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    indexer = shelf.house.container.search.indexer
    indexer._slice = 3
    for n in range(10):
        await shelf.house.say(shelf.ann, room.id, f"fox {n}")
    assert await indexer.catch_up() >= 10
    assert await indexer.catch_up() == 0
    await shelf.house.say(shelf.ann, room.id, "fox 10")
    assert await indexer.catch_up() == 1
    # A fact that commits late has an earlier time than what was seen.
    await shelf.house.change("delete from message_search")
    assert await indexer.catch_up() == 0
    assert await indexer.catch_up(back_s=60) >= 11
    assert len(await shelf.house.rows("select message_id from message_search")) == 11
