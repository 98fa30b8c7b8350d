import asyncio
from collections.abc import Collection
from datetime import timedelta

import pytest

from chatserver.api_keys.errors import (
    AuthExpiredError,
    AuthInvalidError,
    AuthMissingError,
    AuthReuseDetectedError,
    AuthRevokedError,
)
from chatserver.api_keys.identity import Door, Identifier
from chatserver.api_keys.models import StoredScopedKey, Successor
from chatserver.api_keys.policies import Accepted, KeyLife
from chatserver.api_keys.rotation import Rotation
from chatserver.clients.models import StoredMasterKey
from chatserver.infra.secrets import (
    Key,
    KeyHasher,
    SecretBox,
    new_master_key,
    new_scoped_key,
)
from chatserver.kernel.errors import DomainError, UnavailableError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.ports import Closing

OPERATOR_KEY = "operator-key-of-the-tests"
HASHER = KeyHasher("p" * 32)
DOORS: tuple[Door, ...] = ("rest", "socket")


def stored_master(key: Key, **other: bool) -> StoredMasterKey:
    return StoredMasterKey(
        key_id=uuid7(),
        kid=key.kid,
        mac=HASHER.mac(key),
        bcrypt_hash=key.secret.encode(),
        is_revoked=other.get("is_revoked", False),
        is_expired=other.get("is_expired", False),
        ends_in_s=None,
        expires_at=None,
        client_id=uuid7(),
        client_slug="acme",
        is_client_active=other.get("is_client_active", True),
        origins=(),
    )


def stored_scoped(key: Key) -> StoredScopedKey:
    return StoredScopedKey(
        kid=key.kid,
        client_id=uuid7(),
        client_slug="acme",
        is_client_active=True,
        origins=(),
        user_id=uuid7(),
        external_id="alice",
        display_name=None,
        device_id="phone",
        scopes=("chat:read",),
        status="active",
        is_expired=False,
        ends_in_s=3600.0,
        expires_at=2_000_000_000.0,
        cur_gen=key.gen,
        cur_id=uuid7(),
        cur_mac=HASHER.mac(key),
    )


class FakeMasters:
    def __init__(self) -> None:
        self.rows: dict[str, StoredMasterKey] = {}
        self.queries = 0

    async def find(self, kid: str) -> StoredMasterKey | None:
        self.queries += 1
        return self.rows.get(kid)


class FakeScoped:
    def __init__(self) -> None:
        self.rows: dict[str, StoredScopedKey] = {}
        self.stale: set[str] = set()
        self.queries = 0
        self.is_away = False
        self.asked = asyncio.Event()
        self.pause: asyncio.Event | None = None

    async def find(self, kid: str, gen: int) -> StoredScopedKey | None:
        self.queries += 1
        if self.is_away:
            raise UnavailableError
        found = self.rows.get(kid)
        self.asked.set()
        if self.pause is not None:
            await self.pause.wait()
        return found

    async def mint(self, kid: str, *, cur_mac: bytes, successor: Successor) -> bool:
        raise AssertionError("a check rotates nothing")

    async def activate(
        self, kid: str, *, pend_mac: bytes, door: str, successor: Successor | None, life: KeyLife
    ) -> bool:
        raise AssertionError("a check rotates nothing")

    async def living(self, kids: Collection[str], *, stale: timedelta) -> dict[str, bool]:
        return {kid: kid in self.stale for kid in kids if kid in self.rows}


class FakeBcrypt:
    """The "hash" of a secret is the secret."""

    def __init__(self) -> None:
        self.checks = 0
        self.asked = asyncio.Event()
        self.is_busy = False

    async def confirms(self, secret: str, hashed: bytes) -> bool:
        self.checks += 1
        self.asked.set()
        await asyncio.sleep(0)
        if self.is_busy:
            raise UnavailableError
        return secret.encode() == hashed


class NoBearers:
    async def check(
        self, token: str, *, client_slug: str | None, device_id: str | None, limbo: bool
    ) -> Accepted:
        raise AuthInvalidError


class House:
    def __init__(self) -> None:
        self.masters = FakeMasters()
        self.scoped = FakeScoped()
        self.bcrypt = FakeBcrypt()
        self.used: list[Principal] = []
        self.identifier = Identifier(
            operator_key=OPERATOR_KEY,
            hasher=HASHER,
            slow=self.bcrypt,
            masters=self.masters,
            scoped=self.scoped,
            rotation=Rotation(
                families=self.scoped,
                hasher=HASHER,
                box=SecretBox.from_text(["seal"]),
                life=KeyLife(),
                alarm=self._alarm,
            ),
            bearers=NoBearers(),
            used=self.used.append,
        )

    async def _alarm(self, stored: StoredScopedKey, reuse: AuthReuseDetectedError) -> None:
        raise AssertionError("nobody reuses a key here")

    def new_master(self, **other: bool) -> str:
        key = new_master_key()
        self.masters.rows[key.kid] = stored_master(key, **other)
        return key.text

    def new_scoped(self) -> str:
        key = new_scoped_key()
        self.scoped.rows[key.kid] = stored_scoped(key)
        return key.text

    @property
    def queries(self) -> int:
        return self.masters.queries + self.scoped.queries

    async def refusal(self, token: object, door: Door) -> DomainError:
        with pytest.raises(DomainError) as refused:
            await self.identifier.identify(token, door=door)
        return refused.value


@pytest.fixture
def house() -> House:
    return House()


class TestWhatIsNoKey:
    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize("token", [None, ""])
    async def test_none_is_missing(self, house: House, door: Door, token: object) -> None:
        assert isinstance(await house.refusal(token, door), AuthMissingError)

    @pytest.mark.parametrize("door", DOORS)
    @pytest.mark.parametrize(
        "token",
        [
            [],
            {},
            1,
            True,
            "x",
            "x" * 1_000_000,
            "csu_",
            "csm_",
            "\ud800",
            "csu_" + "é" * 70,
            "a.b.c",
        ],
        ids=lambda token: repr(token)[:12],
    )
    async def test_garbage_is_invalid_and_asks_nobody(
        self, house: House, door: Door, token: object
    ) -> None:
        assert isinstance(await house.refusal(token, door), AuthInvalidError)
        assert house.queries == 0

    @pytest.mark.parametrize("door", DOORS)
    async def test_a_typing_error_asks_nobody(self, house: House, door: Door) -> None:
        for token in (house.new_scoped(), house.new_master()):
            typo = token[:-1] + ("a" if token[-1] != "a" else "b")
            assert isinstance(await house.refusal(typo, door), AuthInvalidError)
        assert house.queries == 0
        assert house.bcrypt.checks == 0

    @pytest.mark.parametrize("door", DOORS)
    async def test_unknown_malformed_and_wrong_are_told_alike(
        self, house: House, door: Door
    ) -> None:
        known = new_scoped_key()
        house.scoped.rows[known.kid] = stored_scoped(known)
        tokens = [
            new_scoped_key().text,
            new_scoped_key(kid=known.kid).text,
            new_scoped_key(kid=known.kid, gen=2).text,
            known.text[:-1],
        ]
        refusals = [await house.refusal(token, door) for token in tokens]
        assert {(r.code, r.message, str(r.details)) for r in refusals} == {
            ("auth.invalid", "This key is not valid.", "{'action': 'login'}")
        }

    async def test_no_refusal_quotes_the_key(self, house: House) -> None:
        for token in (house.new_scoped()[:-1], house.new_master()[:-1], "operator-key-of-the"):
            refused = await house.refusal(token, "rest")
            assert token not in f"{refused!r}{refused.details}{refused.issues}"


class TestOperatorKey:
    async def test_it_is_the_operator_in_rest(self, house: House) -> None:
        principal = await house.identifier.identify(OPERATOR_KEY, door="rest")
        assert principal.caller is Caller.OPERATOR
        assert house.queries == 0

    @pytest.mark.parametrize("token", [OPERATOR_KEY[:-1], OPERATOR_KEY + "x", OPERATOR_KEY.upper()])
    async def test_nearly_right_is_wrong(self, house: House, token: str) -> None:
        assert isinstance(await house.refusal(token, "rest"), AuthInvalidError)


class TestDoors:
    async def test_a_socket_takes_a_scoped_key(self, house: House) -> None:
        principal = await house.identifier.identify(house.new_scoped(), door="socket")
        assert principal.external_id == "alice"

    async def test_a_socket_refuses_other_keys_and_says_what_it_takes(self, house: House) -> None:
        for token in (OPERATOR_KEY, house.new_master()):
            refused = await house.refusal(token, "socket")
            assert isinstance(refused, AuthInvalidError)
            assert "scoped key" in refused.message
        assert house.queries == 0

    async def test_a_socket_always_asks_the_database(self, house: House) -> None:
        token = house.new_scoped()
        for _ in range(3):
            await house.identifier.identify(token, door="socket")
        assert house.scoped.queries == 3

    async def test_rest_remembers_for_a_while(self, house: House) -> None:
        token = house.new_scoped()
        for _ in range(3):
            await house.identifier.identify(token, door="rest")
        assert house.scoped.queries == 1
        assert len(house.used) == 3

    @pytest.mark.parametrize("door", DOORS)
    async def test_a_database_that_is_away_opens_no_door(self, house: House, door: Door) -> None:
        token = house.new_scoped()
        house.scoped.is_away = True
        assert isinstance(await house.refusal(token, door), UnavailableError)


class TestMasterKey:
    async def test_it_is_its_clients(self, house: House) -> None:
        token = house.new_master()
        principal = await house.identifier.identify(token, door="rest")
        assert (principal.caller, principal.client_slug) == (Caller.MASTER, "acme")
        assert house.used == [principal]

    @pytest.mark.parametrize(
        ("other", "refusal"),
        [
            ({"is_revoked": True}, AuthRevokedError),
            ({"is_expired": True}, AuthExpiredError),
            ({"is_client_active": False}, AuthRevokedError),
        ],
        ids=["revoked", "expired", "client disabled"],
    )
    async def test_a_dead_one_says_why(
        self, house: House, other: dict[str, bool], refusal: type[DomainError]
    ) -> None:
        assert isinstance(await house.refusal(house.new_master(**other), "rest"), refusal)
        assert house.bcrypt.checks == 0

    async def test_a_wrong_secret_never_reaches_bcrypt(self, house: House) -> None:
        known = new_master_key()
        house.masters.rows[known.kid] = stored_master(known)
        wrong = Key(known.kid, 0, new_master_key().secret).text
        assert isinstance(await house.refusal(wrong, "rest"), AuthInvalidError)
        assert isinstance(await house.refusal(new_master_key().text, "rest"), AuthInvalidError)
        assert house.bcrypt.checks == 0

    async def test_bcrypt_has_the_last_word(self, house: House) -> None:
        key = new_master_key()
        stored = stored_master(key)
        other = StoredMasterKey(
            **{name: getattr(stored, name) for name in stored.__slots__} | {"bcrypt_hash": b"x"}
        )
        house.masters.rows[key.kid] = other
        assert isinstance(await house.refusal(key.text, "rest"), AuthInvalidError)

    async def test_bcrypt_looks_once_however_many_ask_at_first(self, house: House) -> None:
        token = house.new_master()
        asked = [house.identifier.identify(token, door="rest") for _ in range(50)]
        assert len(await asyncio.gather(*asked)) == 50
        assert house.bcrypt.checks == 1

    async def test_bcrypt_looks_once_though_the_short_memory_is_lost(self, house: House) -> None:
        token = house.new_master()
        await house.identifier.identify(token, door="rest")
        house.identifier._known.drop(lambda _: True)
        await house.identifier.identify(token, door="rest")
        assert (house.masters.queries, house.bcrypt.checks) == (2, 1)

    async def test_a_busy_bcrypt_is_unavailable_and_looks_again_later(self, house: House) -> None:
        token = house.new_master()
        house.bcrypt.is_busy = True
        assert isinstance(await house.refusal(token, "rest"), UnavailableError)
        house.bcrypt.is_busy = False
        await house.identifier.identify(token, door="rest")

    async def test_whoever_gives_up_does_not_end_the_look_of_the_others(self, house: House) -> None:
        token = house.new_master()
        first = asyncio.create_task(house.identifier.identify(token, door="rest"))
        second = asyncio.create_task(house.identifier.identify(token, door="rest"))
        await house.bcrypt.asked.wait()
        first.cancel()
        assert (await second).is_master
        assert house.bcrypt.checks == 1


class TestForget:
    @pytest.mark.parametrize("of", ["kid", "user_id", "client_id"])
    async def test_whom_a_closing_concerns_is_looked_up_again(self, house: House, of: str) -> None:
        token, other = house.new_scoped(), house.new_scoped()
        principal = await house.identifier.identify(token, door="rest")
        await house.identifier.identify(other, door="rest")
        del house.scoped.rows[principal.kid]
        closing = Closing(code="auth.revoked", reason="", **{of: getattr(principal, of)})
        house.identifier.forget(closing)
        assert isinstance(await house.refusal(token, "rest"), AuthInvalidError)
        queries = house.queries
        await house.identifier.identify(other, door="rest")
        assert house.queries == queries

    async def test_a_master_key_is_confirmed_anew_after_its_kick(self, house: House) -> None:
        token = house.new_master()
        principal = await house.identifier.identify(token, door="rest")
        house.identifier.forget(Closing(code="auth.revoked", reason="", kid=principal.kid))
        await house.identifier.identify(token, door="rest")
        assert house.bcrypt.checks == 2

    async def test_a_kick_during_the_look_up_is_not_overtaken_by_it(self, house: House) -> None:
        token = house.new_scoped()
        house.scoped.pause = asyncio.Event()
        asking = asyncio.create_task(house.identifier.identify(token, door="rest"))
        await house.scoped.asked.wait()
        kid = token.split("_")[1]
        del house.scoped.rows[kid]
        house.identifier.forget(Closing(code="auth.revoked", reason="", kid=kid))
        house.scoped.pause.set()
        await asking
        assert isinstance(await house.refusal(token, "rest"), AuthInvalidError)


class TestDeadAmong:
    async def test_it_names_those_that_do_not_live(self, house: House) -> None:
        living = house.new_scoped().split("_")[1]
        assert await house.identifier.dead_among([living, "gone"]) == {"gone"}
        assert await house.identifier.dead_among([]) == set()

    async def test_an_open_socket_counts_as_use_once_in_a_while(self, house: House) -> None:
        fresh, stale = (house.new_scoped().split("_")[1] for _ in range(2))
        house.scoped.stale = {stale}
        await house.identifier.dead_among([fresh, stale])
        assert [principal.kid for principal in house.used] == [stale]
