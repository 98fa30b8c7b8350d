"""Notifications to ten thousand: taken in whole or not at all, promised part by part."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
from pydantic import ValidationError

from chatserver.infra.idempotency import made_before
from chatserver.infra.secrets import SecretBox
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import Issue, PayloadInvalidError
from chatserver.kernel.findings import issues_of, sentence
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Caller, Principal
from chatserver.kernel.wire import UploadedFile
from chatserver.notifications.batches.errors import BatchNotFoundError
from chatserver.notifications.batches.models import (
    BatchPart,
    NotificationBatch,
    place_of_batch,
    place_of_part,
)
from chatserver.notifications.batches.repository import BatchRepository
from chatserver.notifications.batches.schemas import (
    MOST_LINES,
    BatchOut,
    BatchRef,
    CreateBatch,
    ListBatches,
)
from chatserver.notifications.requests.schemas import (
    NotificationRef,
    Recipient,
    SendNotification,
    SentNotification,
)

PART: Final = 500
MOST_FILE_BYTES: Final = 8 * 2**20
# Of the wrong lines the first are named.
NAMED: Final = 20


class Sends(Protocol):
    """Notifications of the same transaction."""

    async def send(self, principal: Principal, command: SendNotification) -> SentNotification: ...

    async def cancel(self, principal: Principal, command: NotificationRef) -> Any: ...  # noqa: ANN401


class Known(Protocol):
    """Who is a user of a client."""

    async def __call__(self, client_id: UUID, names: Collection[str]) -> set[str]:
        """Give those of some names that are known."""
        ...


class BatchService:
    """Batches of one transaction; `later` plans the job that goes on with one."""

    def __init__(
        self,
        *,
        batches: BatchRepository,
        requests: Sends,
        known: Known,
        box: SecretBox,
        recorder: Recorder,
        later: Callable[[UUID, UUID], Awaitable[None]],
    ) -> None:
        self._batches = batches
        self._requests = requests
        self._known = known
        self._box = box
        self._recorder = recorder
        self._later = later

    async def create(
        self, principal: Principal, command: CreateBatch, lines: Sequence[dict[str, Any]]
    ) -> BatchOut:
        """Keep lines that were checked; a worker promises their deliveries."""
        if (made := made_before()) is not None:
            # The first request with this key was committed and never answered.
            return await self.get(principal, BatchRef(id=made))
        client_id, batch_id = principal.client_id, uuid7()
        batch = NotificationBatch(
            id=batch_id,
            client_id=client_id,
            recipients=len(lines),
            sealed=self._box.seal(
                orjson.dumps(command.notification), bound_to=place_of_batch(client_id, batch_id)
            ),
        )
        parts = [
            BatchPart(
                batch_id=batch_id,
                no=no,
                client_id=client_id,
                sealed=self._box.seal(
                    orjson.dumps(part), bound_to=place_of_part(client_id, batch_id, no)
                ),
            )
            for no, part in enumerate(_parts(lines))
        ]
        await self._batches.add(batch, parts)
        await self._later(client_id, batch_id)
        self._recorder.audit(
            client_id,
            principal,
            "notification.batch",
            f"notification_batch:{batch_id}",
            recipients=len(lines),
        )
        return _shown(batch, [], {})

    async def get(self, principal: Principal, command: BatchRef) -> BatchOut:
        """Show how far a batch is, and how its deliveries stand.

        Raises:
            BatchNotFoundError: there is none of the client.
        """
        batch = await self._must(principal.client_id, command.id)
        return _shown(
            batch,
            await self._batches.notifications(batch.id),
            await self._batches.states(batch.id),
        )

    async def list(self, principal: Principal, command: ListBatches) -> Page[BatchOut]:
        rows, counted = await self._batches.page(
            principal.client_id, offset=command.offset, limit=command.size
        )
        return Page[BatchOut].of([_shown(row, [], {}) for row in rows], command, counted)

    async def cancel(self, principal: Principal, command: BatchRef) -> BatchOut:
        """Promise nothing more of a batch, and cancel what was not sent; again changes nothing.

        Raises:
            BatchNotFoundError: there is none of the client.
        """
        if not await self._batches.lock(principal.client_id, command.id):
            raise BatchNotFoundError
        await self._batches.drop_parts(command.id)
        await self._batches.stop(command.id)
        for notification_id in await self._batches.notifications(command.id):
            await self._requests.cancel(principal, NotificationRef(id=notification_id))
        return await self.get(principal, command)

    async def go_on(self, client_id: UUID, batch_id: UUID) -> bool:
        """Promise the deliveries of the next part. False: there is nothing left to do.

        Raises:
            QuotaExceededError: the client has used up what it may send; nothing was kept.
        """
        if not await self._batches.lock(client_id, batch_id):
            return False
        batch = await self._must(client_id, batch_id)
        part = await self._batches.next_part(batch_id)
        if part is None or batch.sealed is None or batch.state == "cancelled":
            return False
        content = orjson.loads(
            self._box.open(batch.sealed, bound_to=place_of_batch(client_id, batch_id))
        )
        lines: list[dict[str, Any]] = orjson.loads(
            self._box.open(part.sealed, bound_to=place_of_part(client_id, batch_id, part.no))
        )
        named = {line["user_id"] for line in lines if line.get("user_id") is not None}
        known = await self._known(client_id, named)
        wanted = [line for line in lines if line.get("user_id") is None or line["user_id"] in known]
        if wanted:
            command = SendNotification.model_validate({**content, "recipients": wanted})
            principal = Principal(caller=Caller.MASTER, client_id=client_id)
            sent = await self._requests.send(principal, command)
            await self._batches.note(batch_id, sent.id)
        await self._batches.move_on(batch_id, done=len(lines), skipped=len(lines) - len(wanted))
        return True

    async def stall(self, batch_id: UUID, error: str) -> None:
        """Say why a batch does not go on just now."""
        await self._batches.stall(batch_id, error)

    async def _must(self, client_id: UUID, batch_id: UUID) -> NotificationBatch:
        found = await self._batches.find(client_id, batch_id)
        if found is None:
            raise BatchNotFoundError
        return found


def read_lines(files: Sequence[UploadedFile], text: str | None) -> list[dict[str, Any]]:
    """Read and check every line of a file, or of a text.

    Raises:
        PayloadInvalidError: with the first wrong lines, by their numbers; nothing is sent then.
    """
    if (len(files) == 1) == (text is not None) or len(files) > 1:
        raise PayloadInvalidError.of("file", "send one file, or lines")
    if files and files[0].size > MOST_FILE_BYTES:
        raise PayloadInvalidError.of("file", f"must be at most {MOST_FILE_BYTES} bytes")
    raw = files[0].path.read_bytes() if files else (text or "").encode()
    found: list[dict[str, Any]] = []
    wrong: list[Issue] = []
    for number, line in enumerate(raw.splitlines(), start=1):
        if not line.strip():
            continue
        if len(found) >= MOST_LINES:
            raise PayloadInvalidError.of("file", f"must have at most {MOST_LINES} lines")
        try:
            recipient = Recipient.model_validate(orjson.loads(line))
        except (ValidationError, orjson.JSONDecodeError) as error:
            wrong.append({"field": f"file.{number}", "issue": _wrong(error)})
            if len(wrong) == NAMED:
                break
            continue
        found.append(recipient.model_dump(exclude_none=True))
    if wrong:
        raise PayloadInvalidError(issues=tuple(wrong))
    if not found:
        raise PayloadInvalidError.of("file", "has no lines")
    return found


def _wrong(error: ValidationError | orjson.JSONDecodeError) -> str:
    if isinstance(error, ValidationError):
        return sentence(issues_of(error)[0])
    return "is not JSON"


def _parts(lines: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    waiting = iter(lines)
    while part := list(islice(waiting, PART)):
        yield part


def _shown(
    batch: NotificationBatch, notifications: Sequence[UUID], states: dict[str, int]
) -> BatchOut:
    return BatchOut.model_validate(
        {
            "id": batch.id,
            "state": batch.state,
            "recipients": batch.recipients,
            "done": batch.done,
            "skipped": batch.skipped,
            "error": batch.error,
            "notification_ids": list(notifications),
            "states": states,
            "created_at": batch.created_at,
            "ended_at": batch.ended_at,
        }
    )
