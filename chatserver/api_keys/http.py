"""REST: logins, revocation, and what a scoped key says of its holder."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from chatserver.api_keys.schemas import (
    KeyList,
    KeyOf,
    KeyOut,
    KeysOf,
    LoggedIn,
    Login,
    Me,
    Revoked,
    Unread,
)
from chatserver.api_keys.service import ApiKeyService
from chatserver.clients.errors import KeyNotFoundError
from chatserver.clients.schemas import Nothing
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import Empty
from chatserver.transport.registry import MASTER, USER, Route, operation
from chatserver.users.errors import UserErasingError, UserNotFoundError


class ApiKeysHttp:
    """`waiting` counts what a caller has not read: other features know that."""

    def __init__(
        self,
        keys: Open[ApiKeyService],
        waiting: Callable[[Principal], Awaitable[dict[str, Any]]],
    ) -> None:
        self._keys = keys
        self._waiting = waiting

    @operation("user.login", Login, LoggedIn, callers=MASTER, errors=(UserErasingError,))
    async def login(self, principal: Principal, command: Login) -> LoggedIn:
        """Issue a key for a user on a device; the user is made if unknown.

        The answer shows the key once. A known `device_id` goes on with its keys: the older ones
        work for another 120 s, with `replace: true` they and their sockets end at once. Without a
        `device_id` a new device is made. A user has at most 20 devices: one more ends the longest
        idle one. Scopes, rotation and lifetime are those of this login, not of an earlier one. The
        key ends at `expires_at`, or earlier when it is not used for 30 days.
        """
        async with self._keys() as keys:
            return await keys.login(principal, command)

    @operation("user.revoke", KeysOf, Revoked, callers=MASTER, errors=(UserNotFoundError,))
    async def revoke(self, principal: Principal, command: KeysOf) -> Revoked:
        """End every key of a user and close every socket, on every node."""
        async with self._keys() as keys:
            return await keys.revoke(principal, command)

    @operation(
        "user_key.list",
        KeyList,
        Page[KeyOut],
        scope=Scope.PROFILE_READ,
        errors=(UserNotFoundError,),
    )
    async def list(self, principal: Principal, command: KeyList) -> Page[KeyOut]:
        """List a user's living keys, one for each device. A scoped key lists its own user's."""
        async with self._keys() as keys:
            return await keys.list(principal, command)

    @operation(
        "user_key.delete",
        KeyOf,
        Empty,
        scope=Scope.PROFILE_WRITE,
        errors=(KeyNotFoundError, UserNotFoundError),
    )
    async def delete(self, principal: Principal, command: KeyOf) -> Empty:
        """End a device's keys, older generations too, and close its sockets."""
        async with self._keys() as keys:
            return await keys.delete(principal, command)

    @operation("user.me", Nothing, Me, callers=USER, scope=Scope.PROFILE_READ)
    async def me(self, principal: Principal, command: Nothing) -> Me:
        """Show the caller's own profile, what is unread, and the key that was presented."""
        async with self._keys() as keys:
            me = await keys.me(principal, command)
        return me.model_copy(update={"unread": Unread(**await self._waiting(principal))})


ROUTES: Final = (
    Route(method="POST", path="/users/{external_id}/login", operation="user.login", status=201),
    Route(method="POST", path="/users/{external_id}/revoke", operation="user.revoke"),
    Route(method="GET", path="/users/{external_id}/keys", operation="user_key.list"),
    Route(
        method="DELETE",
        path="/users/{external_id}/keys/{id}",
        operation="user_key.delete",
        status=204,
    ),
    Route(method="GET", path="/me", operation="user.me"),
)
