import time
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from chatserver.infra.redaction import names_a_secret, redact, redact_text

KID = "0123456789abcdEF"
SECRET = "s3cr3t" * 8
SCOPED_KEY = f"csu_{KID}_1_{SECRET}"
MASTER_KEY = f"csm_{KID}_{SECRET}"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.s3cr3ts3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        SCOPED_KEY,
        MASTER_KEY,
        f"csm_{SECRET}",
        f"csu_short_{SECRET}",
        f"csm_{SECRET}_1",
        f"GET /socket.io/?token={SCOPED_KEY}&EIO=4",
        f"Bearer {SECRET}",
        f"Basic {SECRET}",
        f"bearer%20{SECRET}",
        f"Authorization: Digest username=alice, response={SECRET}",
        f"Cookie: theme=dark; session={SECRET}",
        f"X-API-Key: {SECRET}",
        f"('Authorization', 'Bearer {SECRET}')",
        JWT,
        f"sk-{SECRET}",
        f"postgresql://app:{SECRET}@db:5432/chat",
        f"postgresql://app:a/b@{SECRET}@db/chat",
        f"redis://:{SECRET}@cache:6379/0",
        f"https://{SECRET}@errors.example/1",
        f"host=/run/db user=app password={SECRET} dbname=chat",
        f"password='two words {SECRET}' dbname=chat",
        f"{{'token': '{SECRET}', 'device_id': 'd'}}",
        f'{{"accessToken": "{SECRET}"}}',
        f"{{'password': 'it\\'s {SECRET}'}}",
        f"{{'token': '{SECRET}",
        f"KEY_PEPPER={SECRET}",
        f"OPERATOR_KEY={SECRET}",
        f"SECRET_KEYS={SECRET}",
    ],
)
def test_a_secret_in_running_text_is_hidden(text: str) -> None:
    hidden = redact_text(f"before {text}")
    assert "s3cr3t" not in hidden
    assert hidden.startswith("before ")
    assert "***" in hidden


@pytest.mark.parametrize("key", [SCOPED_KEY, MASTER_KEY])
def test_a_key_stays_recognisable_by_its_public_part(key: str) -> None:
    assert redact_text(f"key {key} is retired") == f"key {key[:4]}{KID}_*** is retired"


@pytest.mark.parametrize(
    "text",
    [
        "room.created in 12 ms",
        "ready http://127.0.0.1:8080/docs",
        "postgresql:///chat?host=/run/db",
        "redis://cache:6379/0",
        "mail to alice@example.com",
        "at 12:30:00 the token was refused",
        "018f3c1e-7b6a-7000-8000-000000000001",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "key",
        "Authorization",
        "password",
        "client_secret",
        "masterKey",
        "APIKey",
        "X-API-Key",
        "HTTP_X_API_KEY",
        "OPERATOR_KEY",
        "SECRET_KEYS",
        "KEY_PEPPER",
        "auth",
        "set-cookie",
        "refreshToken",
        "smtp_password_old",
    ],
)
def test_these_names_hold_secrets(name: str) -> None:
    assert names_a_secret(name)
    assert redact({name: SECRET, "nested": [{name: {"deeper": SECRET}}]}) == {
        name: "***",
        "nested": [{name: "***"}],
    }


@pytest.mark.parametrize("name", ["key_id", "token_count", "keyboard", "event", "author", "_", ""])
def test_these_names_do_not(name: str) -> None:
    assert not names_a_secret(name)


def test_secrets_are_found_at_every_depth_and_in_every_kind_of_value() -> None:
    class Kind(StrEnum):
        LEAK = f"Bearer {SECRET}"

    class Talkative:
        def __repr__(self) -> str:
            return f"<Talkative {SCOPED_KEY}>"

    value: dict[str, Any] = {
        "list": [f"Bearer {SECRET}", (SCOPED_KEY,), {MASTER_KEY}, frozenset({JWT})],
        "bytes": MASTER_KEY.encode(),
        "object": Talkative(),
        "error": ValueError(f"bad key {SCOPED_KEY}"),
        "enum": Kind.LEAK,
        "path": Path("/keys") / SCOPED_KEY,
        "settings": SecretStr(SECRET),
        SCOPED_KEY: "as a name",
    }
    assert "s3cr3t" not in repr(redact(value))


def test_plain_values_keep_their_type_or_become_readable_text() -> None:
    class Type(Enum):
        GROUP = "group"

    room_id = UUID("018f3c1e-7b6a-7000-8000-000000000001")
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert redact(
        {"n": 1, "f": 0.5, "ok": True, "no": None, "room": Type.GROUP, "id": room_id, "at": noon}
    ) == {
        "n": 1,
        "f": 0.5,
        "ok": True,
        "no": None,
        "room": "group",
        "id": str(room_id),
        "at": str(noon),
    }


def test_usage_of_tokens_is_a_number_and_stays_but_a_numeric_secret_does_not() -> None:
    assert redact({"prompt_tokens": 12, "password": 1234, "token": None}) == {
        "prompt_tokens": 12,
        "password": "***",
        "token": None,
    }


def test_a_structure_that_contains_itself_comes_to_an_end() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "..." in repr(redact(loop))


def test_a_value_that_cannot_be_printed_does_not_break_the_line() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert redact(Broken()) == "<Broken whose repr raised RuntimeError>"


@pytest.mark.parametrize(
    "hostile", ["://a:" * 20_000, "token" * 20_000, "password='" * 10_000, "cookie=" * 15_000]
)
def test_a_hostile_text_costs_time_in_proportion_to_its_length(hostile: str) -> None:
    started = time.monotonic()
    redact_text(hostile)
    # Some tens of milliseconds where it is linear; minutes where it is not.
    assert time.monotonic() - started < 3


def test_what_postgresql_quotes_of_rows_is_hidden_to_its_last_line() -> None:
    text = (
        "CheckViolationError: new row violates a constraint\n"
        "DETAIL:  Failing row contains (1, what she wrote\nand went on, {}).\n"
        "[SQL: insert into message values ($1)]\n"
        "The above exception was the direct cause of the following exception:\n"
        "  |   DETAIL:  Key (external_id)=(alice@example.org) already exists."
    )
    found = redact_text(text)
    for word in ("she wrote", "went on", "alice"):
        assert word not in found
    for kept in ("violates a constraint", "[SQL: insert", "The above exception"):
        assert kept in found


def test_what_pydantic_quotes_is_hidden() -> None:
    text = (
        "1 validation error for SendMessage\ncontent\n  Input should be a valid string "
        "[type=string_type, input_value={'a': 'what, input_type she\\nwrote'}, input_type=dict]"
    )
    found = redact_text(text)
    assert "wrote" not in found
    assert "input_type=dict" in found
