from typing import Any

import pytest

from chatserver.clients.schemas import (
    ClientCreate,
    ClientCreated,
    ClientUpdate,
    KeyRotate,
    OwnClientUpdate,
    canonical_origin,
)
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.transport.registry import parse


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(given: str, kept: str) -> None:
    assert canonical_origin(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "null",
        "*",
        "https://*.example.com",
        "example.com",
        "https://example.com/",
        "https://example.com/path",
        "https://user@example.com",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com\n",
        "",
    ],
)
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="must be an origin"):
        canonical_origin(given)


@pytest.mark.parametrize("slug", ["a", "a-b-1", "x" * 63])
def test_a_slug_is_taken(slug: str) -> None:
    assert parse(ClientCreate, {"name": "n", "slug": slug}) == ClientCreate(name="n", slug=slug)


@pytest.mark.parametrize("slug", ["", "-a", "a-", "A", "a_b", "a b", "x" * 64, "a\n", 1])
def test_what_is_no_slug_is_refused_with_the_field_named(slug: object) -> None:
    with pytest.raises(PayloadInvalidError) as refused:
        parse(ClientCreate, {"name": "n", "slug": slug})
    assert [issue["field"] for issue in refused.value.issues] == ["slug"]


ISSUER = {"issuer": "https://a.example", "audience": "b", "jwks_url": "https://a.example/keys"}


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"status": "disabled"}, "status"),
        ({"settings": {}}, "settings"),
        ({"cors_origins": []}, "cors_origins"),
        ({"cors_origins": ["null"]}, "cors_origins.0"),
        ({"limits": {"messages_per_s": 0}}, "limits.messages_per_s"),
        ({"limits": {"messages_per_s": True}}, "limits.messages_per_s"),
        ({"limits": {"other": 1}}, "limits.other"),
        # Characters are counted in bytes, too: an index has no room for more.
        ({"jwt_issuers": [{**ISSUER, "issuer": "😀" * 400}]}, "jwt_issuers.0.issuer"),
        ({"jwt_issuers": [{**ISSUER, "audience": "😀" * 257}]}, "jwt_issuers.0.audience"),
        ({"room_deactivation": {"group": -1}}, "room_deactivation.group"),
        ({"room_deactivation": {"group": "7d"}}, "room_deactivation.group"),
        ({"room_deactivation": {"lobby": 1}}, "room_deactivation.lobby"),
    ],
)
def test_wrong_settings_are_refused_with_the_field_named(
    payload: dict[str, Any], field: str
) -> None:
    with pytest.raises(PayloadInvalidError) as refused:
        parse(OwnClientUpdate, payload)
    assert [issue["field"] for issue in refused.value.issues] == [field]


def test_only_what_was_sent_is_changed() -> None:
    update = OwnClientUpdate.model_validate(
        {
            "cors_origins": ["https://a.example", "https://A.example:443"],
            "room_deactivation": {"group": None, "direct": 60},
            "limits": None,
        }
    )
    assert update.changed_settings() == {
        "cors_origins": ["https://a.example"],
        "limits": None,
        "room_deactivation": {"group": None, "direct": 60},
    }
    assert OwnClientUpdate(name="n").changed_settings() == {}


def test_the_operator_may_not_send_a_null_status() -> None:
    with pytest.raises(PayloadInvalidError):
        parse(ClientUpdate, {"id": str(uuid7()), "status": None})


def test_an_overlap_is_at_most_a_week() -> None:
    with pytest.raises(PayloadInvalidError):
        parse(KeyRotate, {"id": str(uuid7()), "overlap_s": 7 * 86_400 + 1})


def test_an_answer_with_a_key_hides_it_from_logs() -> None:
    created = ClientCreated(id=uuid7(), slug="s", name="n", master_key="csm_secret")
    assert "csm_secret" not in repr(created)
    assert created.model_dump()["master_key"] == "csm_secret"
