"""REST for invites: routes to the commands."""

from typing import Final

from chatserver.transport.registry import Route

_INVITES = "/rooms/{room_id}/invites"
ROUTES: Final = (
    Route(method="POST", path=_INVITES, operation="invite.create", status=201),
    Route(method="GET", path=_INVITES, operation="invite.list"),
    Route(method="DELETE", path=_INVITES + "/{invite_id}", operation="invite.revoke"),
    Route(method="GET", path="/invites/{code}", operation="invite.preview"),
    Route(method="POST", path="/invites/{code}/accept", operation="invite.accept"),
)
