"""Tokens of a client's issuer on a real database: registered, looked up, revoked."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chatserver.api_keys.errors import AuthInvalidError, AuthRevokedError
from chatserver.api_keys.policies import LIMBO_S
from chatserver.api_keys.tokens import LEEWAY_S, LONGEST_LIFE_S
from chatserver.clients.issuers import KEPT
from chatserver.clients.schemas import JwtIssuerIn, OwnClientUpdate, RevokeToken
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.paging import PageRequest
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


class TestRevokingOne:
    @pytest.fixture
    async def master(self, house: KeyHouse) -> Principal:
        return (await house.new_client())[0]

    @pytest.fixture
    async def issuer(self, house: KeyHouse, master: Principal) -> Issuer:
        made = own_issuer()
        await register(house, master, made)
        return made

    async def revoke(self, house: KeyHouse, master: Principal, jti: str, **more: Any) -> Any:
        async with house.open_tokens() as tokens:
            return await tokens.revoke(master, RevokeToken(jti=jti, **more))

    async def test_that_token_is_refused_and_no_other(
        self, house: KeyHouse, master: Principal, issuer: Issuer
    ) -> None:
        token, other = issuer.token("ann", jti="t1"), issuer.token("ann", jti="t2")
        who = await house.identifier.identify(token, door="rest")
        done = await self.revoke(house, master, "t1")
        assert done.issuers == [issuer.name]
        [closing] = house.closings
        assert (closing.code, closing.token, closing.client_id) == (
            "auth.revoked", who.token, None
        )  # fmt: skip
        for door in ("rest", "socket"):
            with pytest.raises(AuthRevokedError):
                await house.identifier.identify(token, door=door)
            await house.identifier.identify(other, door=door)
        with pytest.raises(AuthRevokedError):
            await house.connect(token)

    async def test_it_may_be_revoked_before_it_was_ever_seen_and_twice(
        self, house: KeyHouse, master: Principal, issuer: Issuer
    ) -> None:
        first = await self.revoke(house, master, "unseen", issuer=issuer.name)
        again = await self.revoke(house, master, "unseen")
        assert again.kept_until >= first.kept_until
        with pytest.raises(AuthRevokedError):
            await house.connect(issuer.token(jti="unseen"))
        async with house.open_tokens() as tokens:
            page = await tokens.list(master, PageRequest())
        assert [(it.jti, it.issuer) for it in page.items] == [("unseen", issuer.name)]
        assert page.total == 1

    async def test_nobody_revokes_for_another_client(
        self, house: KeyHouse, master: Principal, issuer: Issuer
    ) -> None:
        stranger, _ = await house.new_client("Stranger")
        with pytest.raises(PayloadInvalidError) as refused:
            await self.revoke(house, stranger, "t1")
        assert refused.value.issues[0]["field"] == "issuer"
        theirs = own_issuer()
        await register(house, stranger, theirs)
        with pytest.raises(PayloadInvalidError):
            await self.revoke(house, stranger, "t1", issuer=issuer.name)
        # The same issuer, registered by somebody else, is another client's all the same.
        await register(house, stranger, Issuer(name=issuer.name))
        await self.revoke(house, stranger, "t1")
        token = issuer.token(jti="t1")
        who = await house.identifier.identify(token, door="rest", client_slug="acme")
        assert who.client_id == master.client_id
        async with house.open_tokens() as tokens:
            assert (await tokens.list(master, PageRequest())).items == []

    async def test_a_node_that_heard_nothing_finds_it_by_asking(
        self, house: KeyHouse, master: Principal, issuer: Issuer
    ) -> None:
        ended = (await house.connect(issuer.token(jti="t1"))).token
        stays = (await house.connect(issuer.token(jti="t2"))).token
        await self.revoke(house, master, "t1")
        assert await house.container.credentials.issuers.revoked_among({ended, stays}) == {ended}
        assert await house.container.credentials.issuers.revoked_among(set()) == set()

    async def test_it_is_kept_for_longer_than_any_token_lives(
        self, house: KeyHouse, master: Principal, issuer: Issuer
    ) -> None:
        longest = LONGEST_LIFE_S + 2 * LEEWAY_S + LIMBO_S
        assert longest <= KEPT.total_seconds()
        before = datetime.now(UTC)
        done = await self.revoke(house, master, "t1")
        assert done.kept_until >= before + KEPT - timedelta(seconds=5)
        [noted] = await house.rows("select actor, subject from audit where action = 'token.revoke'")
        assert noted == {"actor": f"master:{master.key_id}", "subject": "jti:t1"}


async def test_text_that_postgresql_takes_in_no_column_is_refused_and_no_bug(
    house: KeyHouse,
) -> None:
    issuer = own_issuer()
    for claims in ({"iss": "\0"}, {"aud": ["\0"]}, {"jti": "\0"}, {"sub": "\0"}):
        with pytest.raises(AuthInvalidError):
            await house.connect(issuer.token(**claims))
