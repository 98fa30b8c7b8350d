"""The fact that tells every device to forget a person."""

from uuid import UUID

from chatserver.kernel.events import SYSTEM, Effect, Fact
from chatserver.kernel.wire import Answer


class ErasedData(Answer):
    """Whose messages are gone: all up to this seq. The person is no member any more, either."""

    user_id: str
    up_to_seq: int


def erased(
    client_id: UUID, room_id: UUID, *, user_id: UUID, external_id: str, up_to_seq: int
) -> Fact:
    return Fact(
        type="messages.erased",
        client_id=client_id,
        room_id=room_id,
        actor=SYSTEM,
        data=ErasedData(user_id=external_id, up_to_seq=up_to_seq).model_dump(),
        # Whichever socket of the person is not closed yet hears nothing after this.
        effect=Effect(left=(user_id,)),
    )
