"""Ten thousand recipients by a file: all lines or none, each once, whoever dies meanwhile."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import UploadedFile
from chatserver.notifications.batches.errors import BatchNotFoundError
from chatserver.notifications.batches.schemas import BatchOut, BatchRef, CreateBatch
from chatserver.notifications.batches.service import PART, read_lines
from chatserver.notifications.requests.service import NotificationService
from tests.support.talk import Talk
from tests.support.talking import master, second, talk
from workers.batches import BatchJobs

__all__ = ["master", "second", "talk"]

SAID = {"channels": {"socket": {"title": "Hello"}}, "category": "news", "priority": "bulk"}


class CutOffError(Exception):
    """The process ends here."""


async def create(talk: Talk, who: Principal, *lines: dict[str, Any]) -> BatchOut:
    text = "\n".join(json.dumps(line) for line in lines)
    command = CreateBatch.model_validate({"notification": SAID, "lines": text})
    async with talk.container.sending.open_batches() as batches:
        return await batches.create(who, command, read_lines((), command.lines))


async def get(talk: Talk, who: Principal, batch_id: UUID) -> BatchOut:
    async with talk.container.sending.open_batches() as batches:
        return await batches.get(who, BatchRef(id=batch_id))


async def work(talk: Talk, who: Principal, batch_id: UUID) -> None:
    await BatchJobs(talk.container.sending.open_batches).send_all(who.client_id, batch_id)


@pytest.fixture
async def crowd(talk: Talk, master: Principal) -> list[str]:
    names = [f"p{n}" for n in range(PART + 20)]
    await talk.users(master, *names)
    return names


async def test_everybody_gets_one_and_the_progress_shows(
    talk: Talk, master: Principal, crowd: list[str]
) -> None:
    made = await create(talk, master, *({"user_id": name} for name in [*crowd, "nobody"]))
    assert (made.state, made.recipients, made.done) == ("queued", len(crowd) + 1, 0)
    [job] = await talk.rows("select kind, payload from job")
    assert job["kind"] == "notifications.batch"
    async with talk.container.sending.open_batches() as batches:
        assert await batches.go_on(master.client_id, made.id)
    half = await get(talk, master, made.id)
    assert (half.state, half.done, half.states) == ("running", PART, {"accepted": PART})
    await work(talk, master, made.id)
    await work(talk, master, made.id)
    done = await get(talk, master, made.id)
    assert (done.state, done.done, done.skipped) == ("done", len(crowd) + 1, 1)
    assert done.states == {"accepted": len(crowd)}
    assert len(done.notification_ids) == 2
    [told] = await talk.rows(
        "select count(*) as n, count(distinct user_id) as people from in_app_notification"
    )
    assert (told["n"], told["people"]) == (len(crowd), len(crowd))
    left = await talk.rows("select sealed from notification_batch")
    assert [row["sealed"] for row in left] == [None]
    assert await talk.rows("select 1 from notification_batch_part") == []


async def test_a_part_that_was_cut_off_is_done_again_and_once(
    talk: Talk, master: Principal, crowd: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await create(talk, master, *({"user_id": name} for name in crowd))
    whole = NotificationService.send

    async def cut_off(self: NotificationService, *given: Any) -> Any:
        await whole(self, *given)
        raise CutOffError

    with monkeypatch.context() as patch:
        patch.setattr(NotificationService, "send", cut_off)
        with pytest.raises(CutOffError):
            await work(talk, master, made.id)
    assert (await get(talk, master, made.id)).done == 0
    assert await talk.rows("select 1 from in_app_notification") == []
    await work(talk, master, made.id)
    assert (await get(talk, master, made.id)).states == {"accepted": len(crowd)}


async def test_cancelling_promises_nothing_more(
    talk: Talk, master: Principal, crowd: list[str]
) -> None:
    made = await create(talk, master, *({"user_id": name} for name in crowd))
    async with talk.container.sending.open_batches() as batches:
        await batches.go_on(master.client_id, made.id)
    async with talk.container.sending.open_batches() as batches:
        stopped = await batches.cancel(master, BatchRef(id=made.id))
    assert (stopped.state, stopped.done) == ("cancelled", PART)
    async with talk.container.sending.open_batches() as batches:
        assert await batches.cancel(master, BatchRef(id=made.id)) == stopped
    await work(talk, master, made.id)
    assert (await get(talk, master, made.id)).states == {"accepted": PART}


async def test_nobody_elses_is_seen(talk: Talk, master: Principal) -> None:
    made = await create(talk, master, {"email": "a@example.net"})
    other = await talk.client("other")
    with pytest.raises(BatchNotFoundError):
        await get(talk, other, made.id)
    async with talk.container.sending.open_batches() as batches:
        with pytest.raises(BatchNotFoundError):
            await batches.cancel(other, BatchRef(id=made.id))
        assert not await batches.go_on(other.client_id, made.id)
    [kept] = await talk.rows("select sealed from notification_batch_part")
    assert b"example.net" not in kept["sealed"]


def test_every_wrong_line_is_named_and_nothing_is_taken() -> None:
    with pytest.raises(PayloadInvalidError) as refused:
        read_lines((), '{"user_id": "ann"}\nno json\n\n{"email": "nobody"}\n{}\n{"colour": 1}')
    assert [issue["field"] for issue in refused.value.issues] == [
        "file.2", "file.4", "file.5", "file.6",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "\n\n", '{"user_id": "a"}\n' * 10_001])
def test_none_and_too_many_are_refused(text: str) -> None:
    with pytest.raises(PayloadInvalidError):
        read_lines((), text)


def test_a_file_is_read_as_a_text_is(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"user_id": "ann"}\r\n{"email": "bob@example.net", "name": "Bob"}')
    file = UploadedFile(name="x", size=path.stat().st_size, sha256=b"", path=path)
    assert read_lines((file,), None) == [
        {"user_id": "ann"},
        {"email": "bob@example.net", "name": "Bob"},
    ]
    for files, text in (((file, file), None), ((file,), "x"), ((), None)):
        with pytest.raises(PayloadInvalidError):
            read_lines(files, text)


@pytest.mark.parametrize(
    "said", ["{", "[]", {"channels": {}}, SAID | {"recipients": []}, SAID | {"colour": 1}]
)
def test_what_is_said_is_checked_with_the_request(said: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        CreateBatch.model_validate({"notification": said, "lines": "x"})


def test_in_a_form_it_is_json() -> None:
    command = CreateBatch.model_validate({"notification": orjson.dumps(SAID).decode()})
    assert command.notification == SAID
