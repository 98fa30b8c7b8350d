import asyncio
import io
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest
from PIL import Image

from chatserver.chat.schemas import MessageRef
from chatserver.files.errors import (
    FileNotFoundInStoreError,
    FileNotReadyError,
    FileTooLargeError,
    FileTypeError,
)
from chatserver.files.policies import key_of
from chatserver.files.schemas import CreateFile, FileRef
from chatserver.files.service import INLINE_BYTES
from chatserver.kernel.errors import UnavailableError
from chatserver.privacy.schemas import PersonPath
from chatserver.realtime.errors import QuotaExceededError
from chatserver.rooms.schemas import InviteMembers, MemberRef
from tests.support.everything import rows_with
from tests.support.files import Shelf, announcement, picture
from tests.support.object_stores import lose, restore

HTML = b"<!doctype html><script>alert(1)</script>"


async def test_a_file_goes_from_hand_to_hand_over_s3(bucket: Shelf) -> None:
    content = picture()
    made = await bucket.announced(bucket.ann, content, "image/png", "Strand ☀.png")
    assert made.file.state == "pending"
    assert made.file.download is None
    assert await bucket.uploaded(made, content) == 200
    reference = FileRef(file_id=made.file.id)
    done = await bucket.service.complete(bucket.ann, reference)
    assert (done.state, done.width, done.height) == ("ready", 800, 400)
    await bucket.service.process(bucket.ann.client_id, done.id)
    room = await bucket.house.room(bucket.ann, "bob")
    await bucket.house.say(bucket.ann, room.id, "see", attachments=[{"file_id": str(done.id)}])
    seen = await bucket.service.get(bucket.bob, reference)
    assert seen.download is not None
    assert seen.thumbnail is not None
    async with aiohttp.ClientSession() as session:
        async with session.get(seen.download.url) as answer:
            assert await answer.read() == content
            assert answer.content_disposition is not None
            assert answer.content_disposition.filename == "Strand ☀.png"
        async with session.get(seen.thumbnail.url) as answer:
            small = Image.open(io.BytesIO(await answer.read()))
            assert (small.format, small.size) == ("WEBP", (400, 200))
    again = await bucket.service.complete(bucket.ann, reference)
    assert again.state == "ready"


async def test_an_upload_that_is_not_what_was_announced_is_refused_and_gone(shelf: Shelf) -> None:
    wrong = {
        "size": (b"hello", b"hello!", "text/plain"),
        "checksum": (b"hello", b"hallo", "text/plain"),
        "type": (HTML, HTML, "image/png"),
        "image": (picture()[:60], picture()[:60], "image/png"),
    }
    for reason, (announced, sent, content_type) in wrong.items():
        made = await shelf.announced(shelf.ann, announced, content_type)
        await shelf.uploaded(made, sent)
        done = await shelf.service.complete(shelf.ann, FileRef(file_id=made.file.id))
        assert (done.state, done.reason, done.download) == ("failed", reason, None)
    assert await shelf.objects() == []


async def test_what_can_not_be_checked_is_not_taken_by_its_name(shelf: Shelf) -> None:
    for content_type in ("text/html", "image/svg+xml", "application/javascript", "x/y", ""):
        with pytest.raises(FileTypeError):
            await shelf.announced(shelf.ann, HTML, content_type)
    # As nothing in particular it may come, and is never shown as what it is.
    done = await shelf.file(shelf.ann, HTML, "application/octet-stream")
    assert done.content_type == "application/octet-stream"


async def test_bounds_are_kept_before_anything_is_sent(shelf: Shelf) -> None:
    values = announcement(b"x", "text/plain") | {"size": 2**40}
    with pytest.raises(FileTooLargeError):
        await shelf.service.create(shelf.ann, CreateFile(**values))
    await shelf.house.change(
        'update client set settings = settings || \'{"quotas": {"storage_bytes_per_day": 10}}\''
    )
    shelf.house.container.gate.book.forget(shelf.master.client_id)
    await shelf.house.container.gate.book.load(shelf.master.client_id)
    await shelf.announced(shelf.ann, b"eight by")
    with pytest.raises(QuotaExceededError):
        await shelf.announced(shelf.ann, b"eight by")


async def test_who_may_see_a_file(shelf: Shelf) -> None:
    file = await shelf.file(shelf.ann)
    reference = FileRef(file_id=file.id)
    other = await shelf.house.tenant("Other")
    eve = await shelf.house.person(other, "ann")
    mallory = await shelf.house.person(shelf.master, "mallory")
    for stranger in (shelf.bob, mallory, other, eve):
        with pytest.raises(FileNotFoundInStoreError):
            await shelf.service.get(stranger, reference)
    assert (await shelf.service.get(shelf.master, reference)).id == file.id
    room = await shelf.house.room(shelf.ann, "bob", history="joined")
    sent = await shelf.house.say(
        shelf.ann, room.id, "see", attachments=[{"file_id": str(file.id), "caption": "mine"}]
    )
    assert sent.message.attachments == [
        {"file_id": str(file.id), "caption": "mine", "name": "notes",
         "content_type": "text/plain", "size": 5}
    ]  # fmt: skip
    assert (await shelf.service.get(shelf.bob, reference)).download is not None
    # Whoever comes later may not read the message, so neither its file.
    async with shelf.house.container.open_members() as members:
        await members.invite(shelf.ann, InviteMembers(room_id=room.id, user_ids=["mallory"]))
    with pytest.raises(FileNotFoundInStoreError):
        await shelf.service.get(mallory, reference)
    # Nobody but its owner may complete or delete it.
    for change in (shelf.service.complete, shelf.service.delete):
        with pytest.raises(FileNotFoundInStoreError):
            await change(shelf.bob, reference)
    # Whoever is out sees it no more, nor anybody once the message is gone.
    async with shelf.house.container.open_members() as members:
        await members.remove(shelf.ann, MemberRef(room_id=room.id, user_id="bob"))
    with pytest.raises(FileNotFoundInStoreError):
        await shelf.service.get(shelf.bob, reference)


async def test_a_deleted_message_gives_its_file_no_more(shelf: Shelf) -> None:
    file = await shelf.file(shelf.ann)
    room = await shelf.house.room(shelf.ann, "bob")
    sent = await shelf.house.say(shelf.ann, room.id, "see", attachments=[{"file_id": str(file.id)}])
    await shelf.service.get(shelf.bob, FileRef(file_id=file.id))
    async with shelf.house.container.open_changes() as changes:
        await changes.delete(shelf.ann, MessageRef(message_id=sent.message.id))
    with pytest.raises(FileNotFoundInStoreError):
        await shelf.service.get(shelf.bob, FileRef(file_id=file.id))
    assert await shelf.house.rows("select * from message_file") == []


async def test_attachments_must_be_the_sender_s_to_show(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    other = await shelf.house.tenant("Other")
    eve = await shelf.house.person(other, "eve")
    foreign = await shelf.file(eve)
    anns = await shelf.file(shelf.ann)
    pending = await shelf.announced(shelf.ann, b"x")
    for who, file_id in (
        (shelf.ann, foreign.id),
        (shelf.master, foreign.id),
        (shelf.bob, anns.id),
        (shelf.ann, uuid4()),
        (shelf.ann, "nonsense"),
        (shelf.ann, None),
    ):
        given = str(file_id) if file_id is not None else None
        with pytest.raises(FileNotFoundInStoreError) as said:
            await shelf.house.say(who, room.id, "x", attachments=[{}, {"file_id": given}])
        assert said.value.issues[0]["field"] == "attachments.1.file_id"
    with pytest.raises(FileNotReadyError):
        await shelf.house.say(
            shelf.ann, room.id, "x", attachments=[{"file_id": str(pending.file.id)}]
        )
    assert await shelf.house.rows("select * from message") == []
    # Bob may pass on what he was shown.
    attachments = [{"file_id": str(anns.id)}]
    await shelf.house.say(shelf.ann, room.id, "x", attachments=attachments)
    await shelf.house.say(shelf.bob, room.id, "y", attachments=attachments)


async def test_nothing_is_complete_before_it_is_uploaded(shelf: Shelf) -> None:
    made = await shelf.announced(shelf.ann, b"hello")
    large = await shelf.announced(shelf.ann, bytes(INLINE_BYTES + 1), "application/octet-stream")
    for each in (made, large):
        with pytest.raises(FileNotReadyError):
            await shelf.service.complete(shelf.ann, FileRef(file_id=each.file.id))
    await shelf.uploaded(made, b"hello")
    done = await shelf.service.complete(shelf.ann, FileRef(file_id=made.file.id))
    assert done.state == "ready"


async def test_a_large_file_is_checked_by_a_worker(shelf: Shelf) -> None:
    content = b"%PDF-1.7" + bytes(INLINE_BYTES)
    made = await shelf.announced(shelf.ann, content, "application/pdf")
    await shelf.uploaded(made, content)
    reference = FileRef(file_id=made.file.id)
    done = await shelf.service.complete(shelf.ann, reference)
    assert (done.state, done.download) == ("checking", None)
    [job] = await shelf.house.rows("select payload from job where kind = 'files.check'")
    assert job["payload"] == {"file_id": str(made.file.id)}
    await shelf.service.process(shelf.ann.client_id, made.file.id)
    assert (await shelf.service.get(shelf.ann, reference)).state == "ready"


async def test_a_check_that_died_between_store_and_row_is_done_again(shelf: Shelf) -> None:
    made = await shelf.announced(shelf.ann, b"hello")
    await shelf.uploaded(made, b"hello")
    incoming = key_of(shelf.ann.client_id, made.file.id, "incoming")
    found = await shelf.files.store.stat(incoming)
    assert found is not None
    await shelf.files.store.move(
        incoming, key_of(shelf.ann.client_id, made.file.id), etag=found.etag
    )
    done = await shelf.service.complete(shelf.ann, FileRef(file_id=made.file.id))
    assert done.state == "ready"


async def test_completing_at_the_same_time_is_completing_once(shelf: Shelf) -> None:
    made = await shelf.announced(shelf.ann, b"hello")
    await shelf.uploaded(made, b"hello")
    reference = FileRef(file_id=made.file.id)
    await asyncio.gather(*(shelf.service.complete(shelf.ann, reference) for _ in range(8)))
    assert (await shelf.service.get(shelf.ann, reference)).state == "ready"


async def test_the_janitor_takes_what_nobody_needs_and_nothing_else(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    carried, lonely = await shelf.file(shelf.ann), await shelf.file(shelf.ann)
    fresh = await shelf.announced(shelf.ann, b"hello")
    held = await shelf.file(shelf.ann)
    abandoned = await shelf.announced(shelf.ann, b"hello")
    await shelf.uploaded(abandoned, b"hello")
    sent = await shelf.house.say(
        shelf.ann, room.id, "x", attachments=[{"file_id": str(carried.id)}]
    )
    await shelf.house.change(
        "update file set expires_at = clock_timestamp() - interval '1 day' where id <> :id",
        id=fresh.file.id,
    )
    # Somebody is just about to send it.
    await shelf.service.check(shelf.ann, room.id, [{"file_id": str(held.id)}])
    await shelf.files.janitor.sweep()
    assert {row["id"] for row in await shelf.house.rows("select id from file")} == {
        carried.id, fresh.file.id, held.id,
    }  # fmt: skip
    for gone in (lonely.id, abandoned.file.id):
        for noun in ("incoming", "files", "thumbnails"):
            assert await shelf.files.store.stat(key_of(shelf.ann.client_id, gone, noun)) is None
    # Once the message lets go, a day is left.
    async with shelf.house.container.open_changes() as changes:
        await changes.delete(shelf.ann, MessageRef(message_id=sent.message.id))
    [row] = await shelf.house.rows(
        "select expires_at - clock_timestamp() as left from file where id = :id", id=carried.id
    )
    assert timedelta(hours=23) < row["left"] < timedelta(hours=25)


async def test_a_client_s_objects_go_with_the_client(shelf: Shelf) -> None:
    file = await shelf.file(shelf.ann)
    await shelf.house.change("delete from client where id = :id", id=shelf.master.client_id)
    assert await shelf.house.rows("select * from file") == []
    await shelf.files.janitor.sweep()
    assert await shelf.files.store.stat(key_of(shelf.ann.client_id, file.id)) is None
    assert await shelf.house.rows("select * from object_removal") == []


async def test_an_erased_person_s_files_are_gone_from_store_rows_and_others_messages(
    shelf: Shelf,
) -> None:
    canary = "c4n4ry"
    made = await shelf.announced(shelf.ann, canary.encode(), name=canary)
    file = await shelf.file(shelf.ann, canary.encode(), name=f"{canary}.txt")
    bobs = await shelf.file(shelf.bob)
    room = await shelf.house.room(shelf.ann, "bob")
    attachments = [{"file_id": str(file.id)}, {"file_id": str(bobs.id)}]
    await shelf.house.say(shelf.ann, room.id, "see", attachments=attachments[:1])
    await shelf.house.say(shelf.bob, room.id, "passed on", attachments=attachments)
    lines = [
        line
        async for line in await shelf.house.container.privacy.exporter.export(
            shelf.master, PersonPath(external_id="ann")
        )
    ]
    assert sum(b'"type":"file"' in line and canary.encode() in line for line in lines) == 2
    async with shelf.house.container.open_privacy() as privacy:
        asked = await privacy.erase(shelf.master, PersonPath(external_id="ann"))
    await shelf.house.container.privacy.eraser.erase(asked.id)
    for gone in (file.id, made.file.id):
        for noun in ("incoming", "files", "thumbnails"):
            assert await shelf.files.store.stat(key_of(shelf.ann.client_id, gone, noun)) is None
    assert await rows_with(shelf.house.address.admin_url, canary) == {}
    [message] = await shelf.house.rows(
        "select attachments from message where content = 'passed on'"
    )
    assert message["attachments"][0] == {"file_id": str(file.id), "erased": True}
    assert message["attachments"][1]["name"] == "notes"
    await shelf.service.get(shelf.bob, FileRef(file_id=bobs.id))
    async with shelf.house.container.open_privacy() as privacy:
        report = (await privacy.report(shelf.master, PersonPath(external_id="ann"))).report
    assert report is not None
    assert report["erased"]["files"] == 2


async def test_without_its_store_messages_go_on_and_uploads_are_unavailable(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    file = await shelf.file(shelf.ann)
    made = await shelf.announced(shelf.ann, b"hello")
    directory = Path(shelf.house.settings.files_dir)
    shelf.files.standing._fresh_s = 0.0
    lose(directory)
    with pytest.raises(UnavailableError):
        await shelf.announced(shelf.ann, b"hello")
    with pytest.raises(UnavailableError):
        await shelf.service.complete(shelf.ann, FileRef(file_id=made.file.id))
    await shelf.house.say(shelf.ann, room.id, "no file")
    await shelf.house.say(shelf.ann, room.id, "old", attachments=[{"file_id": str(file.id)}])
    await shelf.service.delete(shelf.ann, FileRef(file_id=file.id))
    with pytest.raises(UnavailableError):
        await shelf.files.janitor.sweep()
    restore(directory)
    await shelf.file(shelf.ann)
    # What was to be removed meanwhile was not forgotten.
    await shelf.files.janitor.sweep()
    assert await shelf.house.rows("select * from object_removal") == []
