"""What is done to keys, members, settings and clients is written down, and never a secret."""

import pytest

from chatserver.clients.schemas import KeyCreate, KeyPath, KeyRotate, OwnClientUpdate
from chatserver.infra import audit
from chatserver.kernel.errors import DomainError
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.principal import Caller, Principal
from chatserver.privacy.errors import AuditCursorInvalidError
from chatserver.privacy.schemas import AuditEntry, AuditList, AuditPage
from chatserver.rooms.schemas import MemberRef, UpdateMember
from tests.support.everything import rows_with
from tests.support.people import House


@pytest.fixture
async def master(house: House) -> Principal:
    return await house.tenant()


async def page(house: House, master: Principal, **filters: object) -> AuditPage:
    async with house.container.open_privacy() as privacy:
        return await privacy.audit(master, AuditList.model_validate(filters))


async def log(house: House, master: Principal, **filters: object) -> list[AuditEntry]:
    return (await page(house, master, **filters)).items


async def test_keys_settings_and_members_leave_their_trace(house: House, master: Principal) -> None:
    async with house.container.open_master_keys() as keys:
        made = await keys.create(master, KeyCreate(name="second"))
        rotated = await keys.rotate(master, KeyRotate(id=made.id, now=True))
        await keys.delete(master, KeyPath(id=rotated.id))
    async with house.container.open_clients() as clients:
        await clients.update_own(master, OwnClientUpdate(name="Acme 2"))
    ann = await house.person(master, "ann")
    await house.person(master, "bob")
    room = await house.room(ann, "bob")
    async with house.container.open_members() as members:
        change = UpdateMember(room_id=room.id, user_id="bob", role="admin")
        await members.update(ann, change)
        await members.remove(ann, MemberRef(room_id=room.id, user_id="bob"))

    found = [
        entry
        for entry in await log(house, master)
        if entry.action.split(".")[0] in {"client", "client_key", "member"}
    ]

    who = f"master:{master.key_id}"
    assert [(entry.action, entry.actor, entry.subject) for entry in reversed(found)] == [
        ("client.create", "operator", "client"),
        ("client_key.create", who, f"key:{made.id}"),
        ("client_key.rotate", who, f"key:{made.id}"),
        ("client_key.delete", who, f"key:{rotated.id}"),
        ("client.update", who, "client"),
        ("member.update", "user:ann", "user:bob"),
        ("member.remove", "user:ann", "user:bob"),
    ]
    assert found[1].details == {"room_id": str(room.id), "role": "admin", "was": "member"}
    for secret in (made.key, rotated.key):
        assert "audit" not in await rows_with(house.address.admin_url, secret)
        assert "audit" not in await rows_with(house.address.admin_url, secret.split("_")[-1])


async def test_a_secret_that_is_recorded_by_mistake_is_hidden(
    house: House, master: Principal
) -> None:
    key = (await house.login(master, "ann")).key
    async with house.container.database.transaction() as session:
        await audit.record(
            session,
            client_id=master.client_id,
            actor=master,
            action="user.login",
            subject="user:ann",
            details={"password": "hunter2", "said": f"it was {key}", "nested": [{"token": "t0k"}]},
        )
    [entry] = await log(house, master, action="user.login")
    text = entry.model_dump_json()
    for secret in ("hunter2", "t0k", key.split("_")[-1]):
        assert secret not in text


async def test_what_is_refused_leaves_none(house: House, master: Principal) -> None:
    before = len(await log(house, master))
    with pytest.raises(DomainError):
        async with house.container.open_master_keys() as keys:
            await keys.delete(master, KeyPath(id=(await keys.list(master, _first())).items[0].id))
    assert len(await log(house, master)) == before


def _first() -> PageRequest:
    return PageRequest()


async def test_it_is_read_by_cursor_and_filtered(house: House, master: Principal) -> None:
    for number in range(5):
        async with house.container.open_clients() as clients:
            await clients.update_own(master, OwnClientUpdate(name=f"Acme {number}"))
    first = await page(house, master, action="client.update", limit=2)
    second = await page(house, master, action="client.update", limit=2, cursor=first.next_cursor)
    third = await page(house, master, action="client.update", limit=2, cursor=second.next_cursor)
    names = [entry.details["name"] for each in (first, second, third) for entry in each.items]
    assert names == ["Acme 4", "Acme 3", "Acme 2", "Acme 1", "Acme 0"]
    assert third.next_cursor is None

    assert len(await log(house, master, action="client")) == 6
    assert [it.action for it in await log(house, master, action="client.create")] == [
        "client.create"
    ]
    assert await log(house, master, subject="user:nobody") == []
    at = first.items[0].at
    assert [it.id for it in await log(house, master, **{"from": at})] == [first.items[0].id]
    assert first.items[0].id not in [it.id for it in await log(house, master, to=at)]
    with pytest.raises(AuditCursorInvalidError):
        await page(house, master, cursor="bm90IG91cnM")


async def test_it_says_from_which_address(house: House, master: Principal) -> None:
    token = audit.ADDRESS.set("192.0.2.7")
    try:
        async with house.container.open_clients() as clients:
            await clients.update_own(master, OwnClientUpdate(name="Acme 2"))
    finally:
        audit.ADDRESS.reset(token)
    assert (await log(house, master))[0].address == "192.0.2.7"


async def test_another_client_sees_its_own_alone(house: House, master: Principal) -> None:
    other = await house.tenant("Other")
    assert {entry.action for entry in await log(house, other)} == {"client.create"}
    assert len(await log(house, other)) == 1
    assert other.caller is Caller.MASTER
