"""What waits for a person, over all features: for `/me`."""

from typing import Any

from chatserver.chat.reads import ReadService
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.notifications.inbox.service import InboxService


class Waiting:
    def __init__(self, reads: ReadService, open_inbox: Open[InboxService]) -> None:
        self._reads = reads
        self._open_inbox = open_inbox

    async def __call__(self, principal: Principal) -> dict[str, Any]:
        """Count what the caller has not read; what the key may not see is left out."""
        found: dict[str, Any] = {}
        if Scope.CHAT_READ in principal.scopes:
            found |= (await self._reads.summary(principal)).model_dump()
        if Scope.NOTIFICATIONS_READ in principal.scopes:
            async with self._open_inbox() as inbox:
                found["notifications"] = await inbox.unread(principal)
        return found
