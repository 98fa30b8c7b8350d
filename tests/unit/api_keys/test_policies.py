from dataclasses import replace
from uuid import UUID

import pytest

from chatserver.api_keys.errors import AuthExpiredError, AuthInvalidError, AuthRevokedError
from chatserver.api_keys.models import StoredScopedKey
from chatserver.api_keys.policies import judge
from chatserver.infra.secrets import Key, KeyHasher, new_scoped_key
from chatserver.kernel.errors import DomainError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Caller, Scope

HASHER = KeyHasher("p" * 32)
CURRENT = new_scoped_key(gen=3)
PENDING = new_scoped_key(kid=CURRENT.kid, gen=4)
OLD = new_scoped_key(kid=CURRENT.kid, gen=2)
CUR_ID, PEND_ID, OLD_ID = uuid7(), uuid7(), uuid7()

FAMILY = StoredScopedKey(
    kid=CURRENT.kid,
    client_id=uuid7(),
    client_slug="acme",
    is_client_active=True,
    origins=("https://a.example",),
    user_id=uuid7(),
    external_id="alice",
    display_name="Alice",
    device_id="phone",
    scopes=("chat:read", "moon:fly"),
    status="active",
    is_expired=False,
    ends_in_s=3600.0,
    expires_at=2_000_000_000.0,
    cur_gen=3,
    cur_id=CUR_ID,
    cur_mac=HASHER.mac(CURRENT),
    pend_id=PEND_ID,
    pend_mac=HASHER.mac(PENDING),
    old_id=OLD_ID,
    old_mac=HASHER.mac(OLD),
    old_ends_in_s=60.0,
)


def verdict(key: Key, stored: StoredScopedKey | None) -> type[DomainError]:
    with pytest.raises(DomainError) as refused:
        judge(HASHER.mac(key), stored, HASHER.matches)
    return type(refused.value)


@pytest.mark.parametrize(
    ("key", "key_id", "for_s"),
    [(CURRENT, CUR_ID, 3600), (PENDING, PEND_ID, 3600), (OLD, OLD_ID, 60)],
)
def test_each_living_generation_is_accepted_under_its_own_id(
    key: Key, key_id: UUID, for_s: float
) -> None:
    accepted = judge(HASHER.mac(key), FAMILY, HASHER.matches)
    assert (accepted.principal.key_id, accepted.for_s) == (key_id, for_s)


def test_the_principal_says_who_it_is() -> None:
    principal = judge(HASHER.mac(CURRENT), FAMILY, HASHER.matches).principal
    assert principal.caller is Caller.USER
    assert (principal.client_id, principal.client_slug) == (FAMILY.client_id, "acme")
    assert (principal.user_id, principal.external_id) == (FAMILY.user_id, "alice")
    assert (principal.kid, principal.device_id) == (CURRENT.kid, "phone")
    assert principal.expires_at == 2_000_000_000.0
    assert principal.origins == ("https://a.example",)


def test_a_scope_that_this_version_does_not_know_gives_nothing() -> None:
    principal = judge(HASHER.mac(CURRENT), FAMILY, HASHER.matches).principal
    assert principal.scopes == {Scope.CHAT_READ}


def test_an_unknown_key_and_a_wrong_secret_get_the_same_answer() -> None:
    refusals = []
    for stored in (
        None,
        FAMILY,
        replace(FAMILY, status="revoked"),
        replace(FAMILY, is_expired=True),
    ):
        with pytest.raises(AuthInvalidError) as refused:
            judge(HASHER.mac(new_scoped_key(kid=CURRENT.kid, gen=3)), stored, HASHER.matches)
        refusals.append((refused.value.message, str(refused.value.details)))
    assert len(set(refusals)) == 1


@pytest.mark.parametrize("key", [CURRENT, PENDING, OLD])
def test_a_revoked_family_refuses_every_generation(key: Key) -> None:
    assert verdict(key, replace(FAMILY, status="revoked")) is AuthRevokedError
    assert verdict(key, replace(FAMILY, status="revoked", is_expired=True)) is AuthRevokedError


@pytest.mark.parametrize("key", [CURRENT, PENDING, OLD])
def test_a_disabled_client_refuses_every_generation(key: Key) -> None:
    assert verdict(key, replace(FAMILY, is_client_active=False)) is AuthRevokedError


def test_an_expired_family_says_so() -> None:
    assert verdict(CURRENT, replace(FAMILY, is_expired=True, ends_in_s=-1)) is AuthExpiredError
    assert verdict(CURRENT, replace(FAMILY, status="expired")) is AuthExpiredError


def test_a_replaced_generation_is_revoked_after_its_grace_and_the_others_are_not() -> None:
    late = replace(FAMILY, old_ends_in_s=0.0)
    assert verdict(OLD, late) is AuthRevokedError
    assert judge(HASHER.mac(CURRENT), late, HASHER.matches).principal.key_id == CUR_ID


def test_the_refusal_of_a_dead_key_says_that_a_login_cures_it() -> None:
    for stored in (replace(FAMILY, status="revoked"), replace(FAMILY, is_expired=True)):
        with pytest.raises(DomainError) as refused:
            judge(HASHER.mac(CURRENT), stored, HASHER.matches)
        assert refused.value.details == {"action": "login"}


def test_no_secret_is_in_the_repr_of_what_was_read() -> None:
    assert repr(FAMILY.cur_mac) not in repr(FAMILY)
