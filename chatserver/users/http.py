"""REST: people and their profiles."""

from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.transport.registry import MASTER, Route, operation
from chatserver.users.errors import UserErasingError, UserNotFoundError
from chatserver.users.schemas import UserKept, UserList, UserOut, UserPatch, UserPath, UserPut
from chatserver.users.service import UserService


class UsersHttp:
    def __init__(self, users: Open[UserService]) -> None:
        self._users = users

    @operation("user.put", UserPut, UserKept, callers=MASTER, errors=(UserErasingError,))
    async def put(self, principal: Principal, command: UserPut) -> UserKept:
        """Make a user, or replace the profile of a known one.

        The profile is what is sent: a member that isn't is cleared. `PATCH` changes single ones.
        """
        async with self._users() as users:
            return await users.put(principal, command)

    @operation("user.list", UserList, Page[UserOut], callers=MASTER)
    async def list(self, principal: Principal, command: UserList) -> Page[UserOut]:
        """List the users, by external id."""
        async with self._users() as users:
            return await users.list(principal, command)

    @operation("user.get", UserPath, UserOut, scope=Scope.PROFILE_READ, errors=(UserNotFoundError,))
    async def get(self, principal: Principal, command: UserPath) -> UserOut:
        """Show a user. A scoped key sees its own alone."""
        async with self._users() as users:
            return await users.get(principal, command)

    @operation(
        "user.update", UserPatch, UserOut, scope=Scope.PROFILE_WRITE, errors=(UserNotFoundError,)
    )
    async def update(self, principal: Principal, command: UserPatch) -> UserOut:
        """Change a profile. A scoped key changes its own alone.

        A member that is given replaces the old value whole, `null` clears it.
        """
        async with self._users() as users:
            return await users.update(principal, command)


ROUTES: Final = (
    Route(method="GET", path="/users", operation="user.list"),
    Route(method="PUT", path="/users/{external_id}", operation="user.put", status=201),
    Route(method="GET", path="/users/{external_id}", operation="user.get"),
    Route(method="PATCH", path="/users/{external_id}", operation="user.update"),
)
