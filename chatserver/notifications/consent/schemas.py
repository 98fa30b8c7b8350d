"""Preferences of people, and suppressed addresses."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, Field, StringConstraints

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, Timestamp

Channel: TypeAlias = Literal["socket", "email", "webhook", "push", "sms"]
CategoryOrAll: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^(\*|[a-z0-9][a-z0-9._-]{0,63})$")
]
Address: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,320}$")]
Scope: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^(all|category:[a-z0-9][a-z0-9._-]{0,63})$")
]
Why: TypeAlias = Literal[
    "hard_bounce", "soft_bounce", "complaint", "unsubscribe", "manual", "invalid"
]
Wanted: TypeAlias = Annotated[
    dict[CategoryOrAll, dict[Channel, bool]],
    Field(max_length=100, description="By category (`*`: all), whether a channel is wanted."),
]


class PreferencesGet(Request):
    """The caller's own."""


class PreferencesPut(Request):
    """All of them: what is left out is wanted again."""

    preferences: Wanted


class PreferencesPatch(Request):
    """Only what is given changes."""

    preferences: Wanted


class PreferencesOut(Answer):
    """What was chosen. A category of its own counts before `*`; what nobody chose is wanted."""

    preferences: dict[str, dict[str, bool]]


class SuppressionCreate(Request):
    """Send nothing to an address; `scope` is `all` or `category:NAME`."""

    channel: Channel
    address: Address
    scope: Scope = "all"
    reason: Why = "manual"
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = None


class SuppressionList(PageRequest):
    channel: Channel | None = None
    address: Address | None = None


class SuppressionPath(Request):
    id: Id


class SuppressionOut(Answer):
    """A suppression. The address itself is not kept: `address_hint` is what may be shown of it."""

    id: Id
    channel: str
    address_hint: str
    scope: str
    reason: str
    created_at: Timestamp
    expires_at: Timestamp | None


class SuppressionKept(SuppressionOut):
    created: bool

    @property
    def is_repeat(self) -> bool:
        return not self.created
