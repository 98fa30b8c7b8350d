"""What can be done with the people of a client."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol
from uuid import UUID

from chatserver.kernel.paging import Page, PageRequest
from chatserver.kernel.principal import Principal
from chatserver.users.errors import UserErasingError, UserNotFoundError
from chatserver.users.models import User
from chatserver.users.schemas import UserKept, UserList, UserOut, UserPatch, UserPath, UserPut


class Users(Protocol):
    """The rows, as `repository.py` gives them."""

    async def put(
        self, client_id: UUID, external_id: str, profile: dict[str, Any]
    ) -> tuple[User, bool] | None: ...

    async def change(
        self, client_id: UUID, external_id: str, changes: dict[str, Any]
    ) -> User | None: ...

    async def find(self, client_id: UUID, external_id: str) -> User | None: ...

    async def lock(self, client_id: UUID, external_id: str) -> User | None: ...

    async def ids(self, client_id: UUID, external_ids: Iterable[str]) -> dict[str, UUID]: ...

    async def add_missing(self, client_id: UUID, external_ids: Iterable[str]) -> None: ...

    async def list(self, client_id: UUID, page: PageRequest) -> Sequence[User]: ...

    async def count(self, client_id: UUID) -> int: ...

    async def revoke(self, user_id: UUID) -> None: ...


class UserService:
    def __init__(self, *, users: Users) -> None:
        self._users = users

    async def put(self, principal: Principal, command: UserPut) -> UserKept:
        profile = {
            "display_name": command.display_name,
            "avatar_url": command.avatar_url,
            "details": command.metadata or {},
        }
        kept = await self._users.put(principal.client_id, command.external_id, profile)
        if kept is None:
            raise UserErasingError
        user, is_new = kept
        return UserKept.of(shown(user), is_new=is_new)

    async def get(self, principal: Principal, command: UserPath) -> UserOut:
        _may_see(principal, command.external_id)
        return shown(_known(await self._users.find(principal.client_id, command.external_id)))

    async def update(self, principal: Principal, command: UserPatch) -> UserOut:
        _may_see(principal, command.external_id)
        changed = await self._users.change(
            principal.client_id, command.external_id, command.changes()
        )
        return shown(_known(changed))

    async def list(self, principal: Principal, command: UserList) -> Page[UserOut]:
        found = await self._users.list(principal.client_id, command)
        counted = await self._users.count(principal.client_id)
        return Page[UserOut].of([shown(user) for user in found], command, counted)

    async def find(
        self, client_id: UUID, external_ids: Collection[str], *, field: str = "user_ids"
    ) -> dict[str, UUID]:
        """Find many users at once, in one query.

        `field` is what holds the ids in the caller's payload, so that the refusal can name it.

        Raises:
            UserNotFoundError: some are unknown; `issues` says which places of the field.
        """
        known = await self._users.ids(client_id, set(external_ids))
        unknown = [f"{field}.{place}" for place, it in enumerate(external_ids) if it not in known]
        if unknown:
            raise UserNotFoundError.at(unknown)
        return known

    async def find_one(self, client_id: UUID, external_id: str, *, field: str) -> UUID:
        """Find one user.

        Raises:
            UserNotFoundError: there is none; `issues` names the field.
        """
        known = await self._users.ids(client_id, [external_id])
        if external_id not in known:
            raise UserNotFoundError.at([field])
        return known[external_id]

    async def ensure(self, client_id: UUID, external_ids: Collection[str]) -> dict[str, UUID]:
        """Find many users at once and make those that are missing.

        Raises:
            UserErasingError: one of them is being erased.
        """
        wanted = set(external_ids)
        known = await self._users.ids(client_id, wanted)
        missing = wanted - known.keys()
        if missing:
            await self._users.add_missing(client_id, missing)
            known |= await self._users.ids(client_id, missing)
        if wanted - known.keys():
            raise UserErasingError
        return known

    async def locked(self, principal: Principal, external_id: str) -> User:
        """Find a user that this caller may see, and keep others from changing the user's keys.

        Raises:
            UserNotFoundError: unknown, or not the caller's own.
        """
        _may_see(principal, external_id)
        return _known(await self._users.lock(principal.client_id, external_id))

    async def visible_id(self, principal: Principal, external_id: str) -> UUID:
        """Find the server id of a user that this caller may see.

        Raises:
            UserNotFoundError: unknown, or not the caller's own.
        """
        _may_see(principal, external_id)
        return _known(await self._users.find(principal.client_id, external_id)).id

    async def own(self, principal: Principal) -> UserOut:
        """Show the caller's own profile."""
        return shown(_known(await self._users.find(principal.client_id, principal.external_id)))

    async def entered(self, client_id: UUID, external_id: str) -> User:
        """Find or make a user, locked like `locked`.

        Raises:
            UserErasingError: somebody of this name is being erased.
        """
        user = await self._users.lock(client_id, external_id)
        if user is None:
            await self._users.add_missing(client_id, [external_id])
            user = await self._users.lock(client_id, external_id)
        if user is None:
            raise UserErasingError
        return user

    async def revoke(self, user: User) -> None:
        """Note that whatever a user holds from before now is void, whoever still has it cached."""
        await self._users.revoke(user.id)


def shown(user: User) -> UserOut:
    return UserOut(
        user_id=user.external_id,
        external_id=user.external_id,
        display_name=user.display_name,
        avatar_url=user.avatar_url,
        metadata=user.details,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )


def _may_see(principal: Principal, external_id: str) -> None:
    # Someone else's profile is as unknown to a user as one that doesn't exist.
    if principal.is_user and principal.external_id != external_id:
        raise UserNotFoundError


def _known(user: User | None) -> User:
    if user is None:
        raise UserNotFoundError
    return user
