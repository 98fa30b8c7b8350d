"""Settings of a client that other features read: what absent members are told of messages."""

from typing import Annotated, Final, TypeAlias

from pydantic import Field

from chatserver.kernel.wire import Request

_WEEK_S: Final = 7 * 86_400

AfterS: TypeAlias = Annotated[int, Field(ge=0, le=_WEEK_S)]


class MailOfMessages(Request):
    """A mail to whoever has not read what was said; `{room}`, `{sender}`, `{count}` are filled in.

    It goes to the address in the person's metadata, `email`.
    """

    after_s: AfterS = 600
    subject: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=10_000)]
    html: Annotated[str, Field(max_length=20_000)] | None = None


class PushOfMessages(Request):
    after_s: AfterS = 0


class MessageNotifications(Request):
    """What members who are absent get of messages, and what follows when they don't read it."""

    enabled: bool = True
    email: MailOfMessages | None = None
    push: PushOfMessages | None = None
