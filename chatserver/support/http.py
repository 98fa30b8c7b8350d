"""REST for the queue of support rooms: routes to the commands."""

from typing import Final

from chatserver.transport.registry import Route

_ROOM = "/rooms/{room_id}"
ROUTES: Final = (
    Route(method="GET", path="/support/queue", operation="support.queue"),
    Route(method="POST", path=_ROOM + "/assign", operation="support.assign"),
    Route(method="POST", path=_ROOM + "/close", operation="support.close"),
    Route(method="POST", path=_ROOM + "/reopen", operation="support.reopen"),
)
