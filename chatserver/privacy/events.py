"""The facts that tell every device to forget a person."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from chatserver.kernel.events import SYSTEM, Effect, Fact
from chatserver.kernel.wire import Answer, left_out


class ErasedData(Answer):
    """Whose messages are gone: all up to this seq. The person is no member any more, either.

    `members_count` is what the room has without the person; older facts don't say it.
    """

    user_id: str
    up_to_seq: int
    members_count: int | None = left_out()


def erased(
    client_id: UUID,
    room_id: UUID,
    *,
    user_id: UUID,
    external_id: str,
    up_to_seq: int,
    members_count: int,
) -> Fact:
    return Fact(
        type="messages.erased",
        client_id=client_id,
        room_id=room_id,
        actor=SYSTEM,
        data=ErasedData(
            user_id=external_id, up_to_seq=up_to_seq, members_count=members_count
        ).model_dump(),
        # Whichever socket of the person is not closed yet hears nothing after this.
        effect=Effect(left=(user_id,)),
    )


def taken_back(
    client_id: UUID, room_id: UUID, *, message_id: UUID, left: Sequence[dict[str, Any]]
) -> Fact:
    """Say which reactions of a message are left when an erased person's are gone.

    It looks as the log shows the person's own deeds from now on: nobody's, and of no emoji.
    """
    return Fact(
        type="reaction.changed",
        client_id=client_id,
        room_id=room_id,
        actor=SYSTEM,
        data={
            "message_id": str(message_id),
            "emoji": "",
            "user_id": None,
            "op": "remove",
            "counts": {each["emoji"]: each["count"] for each in left},
        },
        unlogged=frozenset({"counts"}),
    )
