"""Mails that carry files: read from the store when they are sent, kept until then."""

import asyncio
import email
from collections.abc import AsyncIterator
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chatserver.files.errors import FileNotFoundInStoreError, FileNotReadyError
from chatserver.files.policies import key_of
from chatserver.files.schemas import CreateFile, FileRef
from chatserver.infra.job_kinds import TRIM_RECORDS
from chatserver.infra.jobs import Claim
from chatserver.infra.storage_disk import LINK_PATH, DiskStore
from chatserver.kernel.errors import DomainError, PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.notifications.batches.schemas import CreateBatch
from chatserver.notifications.mails import senders
from chatserver.notifications.requests.schemas import MOST_ATTACHED_BYTES
from tests.support.files import announcement
from tests.support.mail_server import mail_server
from tests.support.mailgun_server import mailgun_server
from tests.support.notifying import MAIL, hasten, mailgun, send, settled, smtp, waiting, working
from tests.support.object_stores import lose
from tests.support.servers import Database
from tests.support.talk import Talk
from tests.support.talking import master
from workers.records import RecordJobs

__all__ = ["master"]

# Every byte, and what servers and line ends would change if it were not encoded.
CONTENT = bytes(range(256)) * 40 + b"\r\n.\r\n.\n\r"
FIELD = "channels.email.attachments.{}.file_id"


@pytest.fixture
async def talk(database: Database, tmp_path: Path) -> AsyncIterator[Talk]:
    """A process that may reach this machine, with files of its own."""
    made = Talk(database, allow_private_addresses=True, files_dir=tmp_path / "files")
    await made.start()
    yield made
    await made.stop()


async def announced(
    talk: Talk, who: Principal, content: bytes, content_type: str, name: str
) -> Any:
    command = CreateFile(**announcement(content, content_type, name))
    return await talk.container.files.service.create(who, command)


async def file(
    talk: Talk,
    who: Principal,
    content: bytes = CONTENT,
    content_type: str = "application/octet-stream",
    name: str = "Rechnung ☀.bin",
) -> UUID:
    """Upload a file and have it checked."""
    made = await announced(talk, who, content, content_type, name)
    store = talk.container.files.store
    assert isinstance(store, DiskStore)
    given = store.permitted(made.upload.url.partition(LINK_PATH)[2])
    assert given is not None
    await store.keep(given.key, content, sha256=None, replace=False)
    reference = FileRef(file_id=made.file.id)
    done = await talk.container.files.service.complete(who, reference)
    if done.state == "checking":
        await talk.container.files.service.process(who.client_id, done.id)
        done = await talk.container.files.service.get(who, reference)
    assert done.state == "ready", done
    return done.id


def carrying(*attachments: UUID | dict[str, Any]) -> dict[str, Any]:
    """Give the channels of a request whose mail carries files."""
    named = [
        {name: str(value) for name, value in each.items()}
        if isinstance(each, dict)
        else {"file_id": str(each)}
        for each in attachments
    ]
    return {"email": MAIL | {"attachments": named}}


async def refused(talk: Talk, who: Principal, *attachments: UUID, **more: Any) -> DomainError:
    with pytest.raises(DomainError) as raised:
        await send(talk, who, channels=carrying(*attachments), **more)
    assert await talk.rows("select 1 from notification") == []
    return raised.value


def parts(mail: EmailMessage) -> list[tuple[str | None, str, Any]]:
    return [
        (each.get_filename(), each.get_content_type(), each.get_payload(decode=True))
        for each in mail.iter_attachments()
    ]


async def let_file_expire(talk: Talk) -> None:
    await talk.run("update file set expires_at = clock_timestamp() - interval '1 minute'")
    await talk.container.files.janitor.sweep()


async def test_smtp_carries_files_byte_for_byte_under_their_names(
    talk: Talk, master: Principal
) -> None:
    picture = await file(talk, master)
    text = await file(talk, master, b"one\ntwo\r\n.\r\nthree", "text/plain", "notes.txt")
    async with mail_server() as server, working(talk):
        await smtp(talk, master, server)
        asked = carrying(picture, {"file_id": text, "filename": "Brief ☂.txt"})
        sent = await send(talk, master, channels=asked)
        [done] = await settled(talk, master, sent.id)
    assert (done.state, done.reason, done.tries) == ("accepted", None, 1)
    [mail] = server.mails()
    assert parts(mail) == [
        ("Rechnung ☀.bin", "application/octet-stream", CONTENT),
        ("Brief ☂.txt", "text/plain", b"one\ntwo\r\n.\r\nthree"),
    ]
    body = mail.get_body()
    assert body is not None
    assert body.get_content().strip() == MAIL["text"]


async def test_mailgun_carries_them_too(talk: Talk, master: Principal) -> None:
    file_id = await file(talk, master)
    async with mailgun_server() as server, working(talk):
        await mailgun(talk, master, server)
        sent = await send(talk, master, channels=carrying(file_id))
        [done] = await settled(talk, master, sent.id)
    assert done.state == "accepted"
    [fields] = server.taken
    mail = email.message_from_bytes(fields["message"], policy=policy.default)
    assert parts(mail) == [("Rechnung ☀.bin", "application/octet-stream", CONTENT)]


async def test_an_unknown_file_and_another_clients_are_refused_alike(
    talk: Talk, master: Principal
) -> None:
    own = await file(talk, master)
    foreign = await file(talk, await talk.client("other"))
    said = [await refused(talk, master, own, each) for each in (uuid7(), foreign)]
    for each in said:
        assert isinstance(each, FileNotFoundInStoreError)
        assert each.issues == ({"field": FIELD.format(1), "issue": "is no file of yours"},)
    assert f"{said[0].__dict__}" == f"{said[1].__dict__}"
    await refused(talk, master, foreign, dry_run=True)


async def test_a_file_that_is_not_ready_is_refused(talk: Talk, master: Principal) -> None:
    made = await announced(talk, master, CONTENT, "text/plain", "a")
    said = await refused(talk, master, made.file.id)
    assert isinstance(said, FileNotReadyError)
    assert said.issues == ({"field": FIELD.format(0), "issue": "is pending"},)


async def test_too_much_or_too_many_are_refused(talk: Talk, master: Principal) -> None:
    large, small = await file(talk, master), await file(talk, master)
    await talk.run("update file set size = $2 where id = $1", large, MOST_ATTACHED_BYTES)
    said = await refused(talk, master, large, small)
    assert isinstance(said, PayloadInvalidError)
    assert said.issues == ({"field": FIELD.format(1), "issue": "makes it more than 10 MiB in all"},)
    with pytest.raises(ValueError, match="at most 10"):
        await send(talk, master, channels=carrying(*[small] * 11))
    with pytest.raises(ValueError, match="no place here"):
        CreateBatch(notification={"channels": carrying(small)}, lines="{}")
    # Exactly so much is taken.
    await send(talk, master, channels=carrying(large), dry_run=True)


@pytest.mark.parametrize("is_object_alone", [True, False])
async def test_a_file_that_is_deleted_before_ends_the_delivery_and_says_why(
    talk: Talk, master: Principal, is_object_alone: bool
) -> None:
    file_id = await file(talk, master)
    async with mail_server() as server:
        provider_id = await smtp(talk, master, server)
        sent = await send(talk, master, channels=carrying(file_id))
        if is_object_alone:
            await talk.container.files.store.delete([key_of(master.client_id, file_id)])
        else:
            await talk.container.files.service.delete(master, FileRef(file_id=file_id))
        async with working(talk):
            [done] = await settled(talk, master, sent.id)
    assert (done.state, done.reason, done.tries) == ("failed", "attachment_gone", 1)
    assert server.taken == []
    # The provider has no part in it.
    [target] = await talk.rows(
        "select state, failures from delivery_target where id = $1", provider_id
    )
    assert (target["state"], target["failures"]) == ("active", 0)


async def test_while_the_store_is_away_the_mail_waits(
    talk: Talk, master: Principal, tmp_path: Path
) -> None:
    file_id = await file(talk, master)
    place, aside = tmp_path / "files", tmp_path / "aside"
    async with mail_server() as server:
        await smtp(talk, master, server)
        sent = await send(talk, master, channels=carrying(file_id))
        place.rename(aside)
        lose(place)
        async with working(talk):
            waits = await waiting(talk, master, sent.id)
            assert waits.reason == "storage_away"
            place.unlink()
            aside.rename(place)
            await hasten(talk)
            [done] = await settled(talk, master, sent.id)
    assert (done.state, len(server.taken)) == ("accepted", 1)


async def test_a_mail_that_gets_no_turn_waits_for_a_later_one(
    talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders, "TURN_S", 0.01)
    sender = talk.container.sending.senders["email"]
    assert isinstance(sender, senders.EmailSender)
    sender._turns = asyncio.Semaphore(0)
    file_id = await file(talk, master)
    async with mail_server() as server:
        await smtp(talk, master, server)
        sent = await send(talk, master, channels=carrying(file_id))
        async with working(talk):
            waits = await waiting(talk, master, sent.id)
            assert waits.reason == "attachments_busy"
            sender._turns.release()
            await hasten(talk)
            [done] = await settled(talk, master, sent.id)
    assert (done.state, sender._turns._value) == ("accepted", 1)


async def test_the_janitor_leaves_a_file_alone_while_a_mail_may_need_it(
    talk: Talk, master: Principal
) -> None:
    file_id = await file(talk, master)
    other = await file(talk, master)
    await send(talk, master, channels=carrying(file_id))
    [kept] = await talk.rows(
        "select f.expires_at > n.purge_at as is_held, n.purge_at = c.purge_at as is_alike"
        " from notification_file n join file f on f.id = n.file_id"
        " join notification_content c on c.notification_id = n.notification_id"
    )
    assert (kept["is_held"], kept["is_alike"]) == (True, True)
    # Whatever else let go of it meanwhile.
    await let_file_expire(talk)
    assert [row["id"] for row in await talk.rows("select id from file")] == [file_id]
    assert await talk.container.files.store.stat(key_of(master.client_id, file_id)) is not None
    assert await talk.container.files.store.stat(key_of(master.client_id, other)) is None
    await talk.run("update notification_file set purge_at = clock_timestamp()")
    claim = Claim(
        id=uuid7(),
        kind=TRIM_RECORDS.name,
        client_id=None,
        payload={},
        attempt=1,
        fence=1,
        lease_s=30.0,
    )
    await RecordJobs(database=talk.container.database).trim(claim)
    await let_file_expire(talk)
    assert await talk.rows("select id from file") == []


async def test_what_is_only_tried_out_holds_nothing(talk: Talk, master: Principal) -> None:
    file_id = await file(talk, master)
    before = await talk.rows("select expires_at from file")
    await send(talk, master, channels=carrying(file_id), dry_run=True)
    assert await talk.rows("select expires_at from file") == before
    assert await talk.rows("select 1 from notification_file") == []
