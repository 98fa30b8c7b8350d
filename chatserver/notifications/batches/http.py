"""REST: notifications to ten thousand by a file."""

import asyncio
from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.notifications.batches.errors import BatchNotFoundError
from chatserver.notifications.batches.schemas import (
    BatchOut,
    BatchRef,
    CreateBatch,
    ListBatches,
)
from chatserver.notifications.batches.service import BatchService, read_lines
from chatserver.transport.registry import MASTER, Route, operation

# Ten thousand lines are checked and sealed.
CREATE_S: Final = 30.0


class BatchesHttp:
    def __init__(self, batches: Open[BatchService]) -> None:
        self._batches = batches

    @operation(
        "notification.batch_create", CreateBatch, BatchOut, callers=MASTER, deadline_s=CREATE_S
    )
    async def create(self, principal: Principal, command: CreateBatch) -> BatchOut:
        """Send one notification to up to 10,000 recipients, a line of a file each.

        Every line is checked before anything is kept; then workers promise the deliveries, 500 at
        a time, each of them once. Send an `Idempotency-Key`: the same file sent again is the same
        batch. A line that names an unknown user is skipped, and counted.
        """
        lines = await asyncio.to_thread(read_lines, command.files, command.lines)
        async with self._batches() as batches:
            return await batches.create(principal, command, lines)

    @operation("notification.batch_list", ListBatches, Page[BatchOut], callers=MASTER)
    async def list(self, principal: Principal, command: ListBatches) -> Page[BatchOut]:
        """List batches, the newest first, without the states of their deliveries."""
        async with self._batches() as batches:
            return await batches.list(principal, command)

    @operation(
        "notification.batch_get", BatchRef, BatchOut, callers=MASTER, errors=(BatchNotFoundError,)
    )
    async def get(self, principal: Principal, command: BatchRef) -> BatchOut:
        """Show how far a batch is, and how its deliveries stand."""
        async with self._batches() as batches:
            return await batches.get(principal, command)

    @operation(
        "notification.batch_cancel",
        BatchRef,
        BatchOut,
        callers=MASTER,
        errors=(BatchNotFoundError,),
    )
    async def cancel(self, principal: Principal, command: BatchRef) -> BatchOut:
        """Send nothing more of a batch; doing it again changes nothing."""
        async with self._batches() as batches:
            return await batches.cancel(principal, command)


_ONE = "/notifications/batches/{id}"
ROUTES: Final = (
    Route(
        method="POST",
        path="/notifications/batches",
        operation="notification.batch_create",
        status=202,
    ),
    Route(method="GET", path="/notifications/batches", operation="notification.batch_list"),
    Route(method="GET", path=_ONE, operation="notification.batch_get"),
    Route(method="POST", path=_ONE + "/cancel", operation="notification.batch_cancel"),
)
