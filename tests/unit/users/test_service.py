from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.principal import Caller, Principal
from chatserver.users.errors import UserNotFoundError
from chatserver.users.models import User
from chatserver.users.schemas import UserPatch, UserPath, UserPut
from chatserver.users.service import UserService

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CLIENT = uuid7()
MASTER = Principal(caller=Caller.MASTER, client_id=CLIENT)
ALICE = Principal(caller=Caller.USER, client_id=CLIENT, external_id="alice")


class FakeUsers:
    """Rows in a dictionary; counts the queries for many."""

    def __init__(self) -> None:
        self.rows: dict[tuple[UUID, str], User] = {}
        self.lookups = 0

    def add(self, client_id: UUID, external_id: str) -> User:
        user = User(
            id=uuid7(),
            client_id=client_id,
            external_id=external_id,
            details={},
            created_at=NOON,
            updated_at=NOON,
        )
        self.rows[client_id, external_id] = user
        return user

    async def put(
        self, client_id: UUID, external_id: str, profile: dict[str, Any]
    ) -> tuple[User, bool]:
        known = (client_id, external_id) in self.rows
        user = self.rows.get((client_id, external_id)) or self.add(client_id, external_id)
        for name, value in profile.items():
            setattr(user, name, value)
        return user, not known

    async def change(
        self, client_id: UUID, external_id: str, changes: dict[str, Any]
    ) -> User | None:
        user = self.rows.get((client_id, external_id))
        for name, value in changes.items():
            setattr(user, name, value)
        return user

    async def find(self, client_id: UUID, external_id: str) -> User | None:
        return self.rows.get((client_id, external_id))

    async def lock(self, client_id: UUID, external_id: str) -> User | None:
        return self.rows.get((client_id, external_id))

    async def ids(self, client_id: UUID, external_ids: Iterable[str]) -> dict[str, UUID]:
        self.lookups += 1
        wanted = {(client_id, it) for it in external_ids}
        return {key[1]: user.id for key, user in self.rows.items() if key in wanted}

    async def add_missing(self, client_id: UUID, external_ids: Iterable[str]) -> None:
        for external_id in external_ids:
            self.add(client_id, external_id)

    async def list(self, client_id: UUID, page: PageRequest) -> Sequence[User]:
        return [user for key, user in self.rows.items() if key[0] == client_id]

    async def count(self, client_id: UUID) -> int:
        return len(await self.list(client_id, PageRequest()))

    async def revoke(self, user_id: UUID) -> None:
        raise NotImplementedError  # no test of profiles revokes anybody


@pytest.fixture
def rows() -> FakeUsers:
    return FakeUsers()


@pytest.fixture
def users(rows: FakeUsers) -> UserService:
    return UserService(users=rows)


class TestPut:
    async def test_a_new_user_is_new_and_a_known_one_a_repeat(self, users: UserService) -> None:
        first = await users.put(MASTER, UserPut(external_id="alice", display_name="Alice"))
        second = await users.put(MASTER, UserPut(external_id="alice", metadata={"a": 1}))
        assert (first.is_repeat, second.is_repeat) == (False, True)
        assert (second.display_name, second.metadata) == (None, {"a": 1})

    async def test_the_wire_knows_only_the_external_id(
        self, users: UserService, rows: FakeUsers
    ) -> None:
        kept = await users.put(MASTER, UserPut(external_id="alice"))
        assert kept.user_id == kept.external_id == "alice"
        assert str(rows.rows[CLIENT, "alice"].id) not in kept.model_dump_json()
        assert "is_new" not in kept.model_dump_json()


class TestVisibility:
    async def test_a_user_sees_and_changes_the_own_profile(
        self, users: UserService, rows: FakeUsers
    ) -> None:
        rows.add(CLIENT, "alice")
        await users.update(ALICE, UserPatch(external_id="alice", display_name="A"))
        assert (await users.get(ALICE, UserPath(external_id="alice"))).display_name == "A"

    async def test_someone_else_is_as_unknown_as_nobody(
        self, users: UserService, rows: FakeUsers
    ) -> None:
        rows.add(CLIENT, "bob")
        refusals = []
        for external_id in ("bob", "nobody"):
            for call in (
                users.get(ALICE, UserPath(external_id=external_id)),
                users.update(ALICE, UserPatch(external_id=external_id)),
                users.locked(ALICE, external_id),
                users.visible_id(ALICE, external_id),
            ):
                with pytest.raises(UserNotFoundError) as refused:
                    await call
                refusals.append((refused.value.message, refused.value.issues))
        assert len(set(refusals)) == 1

    async def test_another_clients_user_is_unknown_to_a_master_key(
        self, users: UserService, rows: FakeUsers
    ) -> None:
        rows.add(uuid7(), "alice")
        with pytest.raises(UserNotFoundError):
            await users.get(MASTER, UserPath(external_id="alice"))


class TestFind:
    async def test_many_are_found_in_one_query(self, users: UserService, rows: FakeUsers) -> None:
        alice, bob = rows.add(CLIENT, "alice"), rows.add(CLIENT, "bob")
        found = await users.find(CLIENT, ["alice", "bob", "alice"])
        assert found == {"alice": alice.id, "bob": bob.id}
        assert rows.lookups == 1

    async def test_unknown_ones_are_named_by_their_place(
        self, users: UserService, rows: FakeUsers
    ) -> None:
        rows.add(CLIENT, "alice")
        with pytest.raises(UserNotFoundError) as refused:
            await users.find(CLIENT, ["x", "alice", "y"], field="member_ids")
        assert [issue["field"] for issue in refused.value.issues] == [
            "member_ids.0",
            "member_ids.2",
        ]

    async def test_a_hundred_unknown_ones_are_not_all_listed(self, users: UserService) -> None:
        with pytest.raises(UserNotFoundError) as refused:
            await users.find(CLIENT, [str(number) for number in range(100)])
        assert len(refused.value.issues) == 20

    async def test_one_unknown_user_names_the_field(self, users: UserService) -> None:
        with pytest.raises(UserNotFoundError) as refused:
            await users.find_one(CLIENT, "x", field="sender_id")
        assert [issue["field"] for issue in refused.value.issues] == ["sender_id"]

    async def test_missing_ones_are_made_where_asked(
        self, users: UserService, rows: FakeUsers
    ) -> None:
        alice = rows.add(CLIENT, "alice")
        made = await users.ensure(CLIENT, ["alice", "bob"])
        assert made == {"alice": alice.id, "bob": rows.rows[CLIENT, "bob"].id}
