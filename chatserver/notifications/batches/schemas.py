"""Batches as callers send and see them."""

from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from chatserver.kernel.findings import issues_of, sentence
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, Timestamp, UploadRequest, shows
from chatserver.notifications.requests.schemas import SendNotification

MOST_LINES: Final = 10_000
SOMEBODY: Final = [{"user_id": "somebody"}]


def _read(value: Any) -> Any:  # noqa: ANN401 - a field of a form is text
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        msg = "must be JSON"
        raise ValueError(msg) from error


def _sendable(given: dict[str, Any]) -> dict[str, Any]:
    if unwanted := given.keys() & {"recipients", "dry_run"}:
        msg = f"{min(unwanted)} has no place here"
        raise ValueError(msg)
    try:
        checked = SendNotification.model_validate({**given, "recipients": SOMEBODY})
    except ValidationError as error:
        raise ValueError(sentence(issues_of(error)[0])) from error
    if checked.channels.email is not None and checked.channels.email.attachments:
        # Its parts are promised one after another: a file could go in between.
        msg = "channels.email.attachments has no place here"
        raise ValueError(msg)
    return given


Content: TypeAlias = Annotated[
    dict[str, Any],
    BeforeValidator(_read),
    AfterValidator(_sendable),
    Field(description="What `POST /notifications` takes, without recipients; in a form as JSON."),
]


class CreateBatch(UploadRequest):
    """A form with `notification` and one `file`: a recipient a line (NDJSON), up to 10,000.

    As JSON the lines are the text `lines`.
    """

    model_config = shows(
        notification={"channels": {"socket": {"title": "We are back"}}, "category": "news"},
        lines='{"user_id": "bob"}\n',
    )

    notification: Content
    lines: str | None = None


class BatchRef(Request):
    id: Id


class ListBatches(PageRequest):
    pass


class BatchOut(Answer):
    """How far a batch is. `skipped`: lines that name a user who is unknown.

    `error`: why it does not go on just now; it is tried again. `states`: how many deliveries stand
    how, of those notifications that are promised already.
    """

    id: Id
    state: Literal["queued", "running", "done", "cancelled"]
    recipients: int
    done: int
    skipped: int
    error: str | None
    notification_ids: list[Id]
    states: dict[str, int]
    created_at: Timestamp
    ended_at: Timestamp | None
