"""Tokens of a client's issuer on a real database: registered, looked up, revoked."""

import time

import pytest

from chatserver.api_keys.errors import AuthInvalidError, AuthRevokedError
from chatserver.clients.schemas import JwtIssuerIn, OwnClientUpdate
from chatserver.kernel.principal import Principal
from tests.support.issuer import Issuer, own_issuer
from tests.support.keys import KeyHouse


async def register(house: KeyHouse, master: Principal, *issuers: Issuer) -> None:
    given = [JwtIssuerIn(**it.registration()) for it in issuers]
    async with house.open_clients() as clients:
        shown = await clients.update_own(master, OwnClientUpdate(jwt_issuers=given))
    assert [it.issuer for it in shown.jwt_issuers] == sorted(it.name for it in issuers)


async def test_a_user_is_made_on_first_sight_and_is_the_same_ever_after(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    issuer = own_issuer()
    await register(house, master, issuer)
    first = await house.connect(issuer.token("ann"))
    again = await house.identifier.identify(issuer.token("ann"), door="rest")
    assert (first.client_id, first.external_id) == (master.client_id, "ann")
    assert again.user_id == first.user_id
    assert len(await house.rows("select 1 from app_user")) == 1


async def test_a_list_replaces_the_one_before_and_null_takes_it_away(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    old, new = own_issuer(), own_issuer()
    await register(house, master, old)
    await register(house, master, new)
    await house.connect(new.token())
    with pytest.raises(AuthInvalidError):
        await house.connect(old.token())
    async with house.open_clients() as clients:
        await clients.update_own(master, OwnClientUpdate(name="Still Acme"))
    await house.connect(new.token())
    async with house.open_clients() as clients:
        await clients.update_own(master, OwnClientUpdate(jwt_issuers=None))
    with pytest.raises(AuthInvalidError):
        await house.connect(new.token())


async def test_a_revocation_voids_what_was_issued_before_it(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    issuer = own_issuer()
    await register(house, master, issuer)
    now = int(time.time())
    early = issuer.token("ann", iat=now - 20)
    who = await house.connect(early)
    later = {who.user_id: float(now - 20)}
    assert await house.people.void_among(later) == set()
    await house.change("update app_user set revoked_before = now() - interval '10 seconds'")
    assert await house.people.void_among(later) == {who.user_id}
    assert await house.people.void_among({who.user_id: float(now)}) == set()
    with pytest.raises(AuthRevokedError):
        await house.connect(early)
    await house.connect(issuer.token("ann"))


async def test_a_disabled_client_and_an_unknown_person_are_void(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    issuer = own_issuer()
    await register(house, master, issuer)
    who = await house.connect(issuer.token("ann"))
    assert await house.people.void_among({master.client_id: 0.0}) == {master.client_id}
    await house.change("update client set status = 'disabled'")
    assert await house.people.void_among({who.user_id: time.time()}) == {who.user_id}
    with pytest.raises(AuthRevokedError):
        await house.connect(issuer.token("ann"))


async def test_the_look_up_of_an_issuer_reads_an_index(house: KeyHouse) -> None:
    plan = await house.plan(
        "select * from jwt_issuer i join client c on c.id = i.client_id where i.issuer = 'x'"
    )
    assert "ix_jwt_issuer_issuer" in plan
