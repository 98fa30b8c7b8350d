"""Invites as callers send and see them."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, Timestamp

DAY_S: Final = 86_400
# 24 random bytes in base64: 192 bits.
CODE_BYTES: Final = 24
CODE: Final = r"^[A-Za-z0-9_-]{32}$"
Code: TypeAlias = Annotated[str, StringConstraints(pattern=CODE, max_length=32)]


class CreateInvite(Request):
    """Who comes by it gets `role`; it ends after `expires_in_s` or `max_uses` people."""

    room_id: Id
    role: Literal["guest", "member"] = "member"
    expires_in_s: Annotated[int, Field(ge=60, le=365 * DAY_S)] = 7 * DAY_S
    max_uses: Annotated[int, Field(ge=1, le=100_000)] | None = None


class ListInvites(PageRequest):
    room_id: Id


class InviteRef(Request):
    room_id: Id
    invite_id: Id


class InviteCode(Request):
    code: Code


class InviteOut(Answer):
    """An invite as those see it who may make some. Its code is told once, when it is made."""

    id: Id
    room_id: Id
    role: str
    max_uses: int | None
    uses: int
    created_by: str | None
    created_at: Timestamp
    expires_at: Timestamp
    revoked_at: Timestamp | None


class MadeInvite(InviteOut):
    code: str


class InvitePreview(Answer):
    """What the holder of a code sees before coming in."""

    room_id: Id
    type: str
    title: str | None
    members_count: int
    role: str
    expires_at: Timestamp
    is_member: bool
