"""Why a message did or did not arrive: what is known of its way, in one answer."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias
from uuid import UUID

from chatserver.chat.errors import MessageNotYoursError
from chatserver.chat.pointers import PointerRepository
from chatserver.chat.schemas import MessageRef, NodeTrace, Trace
from chatserver.chat.service import ChatService
from chatserver.kernel.principal import Principal
from chatserver.rooms import policies as room_policies

NAMED: Final = 100

# (room, seq) to what the nodes say of having shown it.
Shown: TypeAlias = Callable[[UUID, int], Awaitable[list[dict[str, Any]]]]


class TraceService:
    """Reads only. For the author of a message, moderators and the application."""

    def __init__(self, *, chat: ChatService, pointers: PointerRepository) -> None:
        self._chat = chat
        self._pointers = pointers

    async def of(self, principal: Principal, command: MessageRef, shown: Shown) -> Trace:
        """Tell how far a message came.

        Raises:
            MessageNotFoundError, MessageNotYoursError
        """
        message, room, me = await self._chat.visible(principal, command.message_id)
        is_own = principal.is_user and message["sender_id"] == principal.external_id
        if me is not None and not is_own and not room_policies.ranks(me.role, "moderator"):
            raise MessageNotYoursError
        if principal.is_user and me is None:
            raise MessageNotYoursError
        seq = message["seq"]
        fact = await self._pointers.fact(room.id, seq)
        readers, count = await self._pointers.readers(room.id, seq, limit=NAMED)
        return Trace(
            message_id=command.message_id,
            room_id=room.id,
            seq=seq,
            committed_at=fact["created_at"],
            fact_id=fact["id"],
            waits_for_reactions=fact["waits"],
            members_count=room.members_count,
            nodes=[NodeTrace(**each) for each in await shown(room.id, seq)],
            read_count=count,
            read_by=readers,
        )
