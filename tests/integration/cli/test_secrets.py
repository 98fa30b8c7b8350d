"""The key ring is renewed while the server runs, and what can't be opened is not passed over."""

import subprocess
import sys
from typing import Any

import orjson
import pytest

from chatserver.api_keys.rotation import seal
from chatserver.infra.idempotency import Held, Kept, KeyUse
from chatserver.infra.secrets import parse_key
from chatserver.kernel.principal import Principal
from chatserver.privacy.schemas import PersonPath
from chatserver.settings import load
from tests.support.people import House
from tests.support.servers import Database

NEW_KEY = "a new key of the ring that nobody has seen before"


def chatserver(
    database: Database, *arguments: str, **settings: str
) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "chatserver", "secrets", *arguments, "--json"],
        env={**database.environment(), **settings},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    said = done.stdout.strip().splitlines()
    return done.returncode, orjson.loads(said[-1]) if said else {}, done.stderr


def serve(database: Database, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "chatserver", "serve", "--port", "0"],
        env={**database.environment(), **settings},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def ring(database: Database) -> str:
    return f"{NEW_KEY},{database.secrets.secret_keys}"


async def with_sealed_values(house: House) -> KeyUse:
    """A kept answer, and a key that waits for its first use."""
    master = await house.tenant()
    issued = await house.login(master, "ann")
    key = parse_key(issued.key)
    assert key is not None
    sealed = seal(house.container.box, key)
    await house.change("update key_family set cur_ct = :sealed", sealed=sealed)
    use = KeyUse(master.client_id, "master:", "k", b"h")
    held = await house.container.answers.begin(use)
    assert isinstance(held, Held)
    await house.container.answers.keep(held, 201, b'{"key": "x"}')
    return use


@pytest.fixture
async def house(database: Database) -> Any:
    made = House(database)
    await made.start()
    yield made
    await made.close()


@pytest.mark.soak
async def test_after_a_rotation_the_old_key_can_be_dropped(
    house: House, database: Database
) -> None:
    use = await with_sealed_values(house)
    both = ring(database)
    assert chatserver(database, "check", SECRET_KEYS=both)[0] == 0
    code, said, _ = chatserver(database, "check", SECRET_KEYS=NEW_KEY)
    assert code == 1
    assert [each.partition(":")[0] for each in said["unreadable"]] == [
        "key_family.cur_ct", "idempotency.answer",
    ]  # fmt: skip

    code, said, _ = chatserver(database, "rotate", SECRET_KEYS=both)

    assert (code, said["resealed"]) == (0, 2)
    assert chatserver(database, "rotate", SECRET_KEYS=both)[1]["resealed"] == 0
    assert chatserver(database, "check", SECRET_KEYS=NEW_KEY)[0] == 0
    newer = House(database, secret_keys=NEW_KEY)
    assert await newer.container.answers.begin(use) == Kept(201, b'{"key": "x"}')
    await newer.container.database.close()


async def test_a_server_does_not_start_when_something_is_unreadable(
    house: House, database: Database
) -> None:
    await with_sealed_values(house)
    done = serve(database, SECRET_KEYS=NEW_KEY)
    assert done.returncode == 1
    assert "not in SECRET_KEYS" in done.stderr
    assert NEW_KEY not in done.stderr


async def test_keys_move_to_a_new_pepper_when_they_are_used(
    house: House, database: Database
) -> None:
    master = await house.tenant()
    issued = await house.login(master, "ann")
    idle = await house.login(master, "bob")
    old = database.secrets.key_pepper

    both = House(database, key_pepper=f"a pepper that is new,{old}")
    who = await both.container.identifier.identify(issued.key, door="rest")
    assert who.external_id == "ann"
    await both.container.credentials.remac.flush()
    await both.container.database.close()

    code, said, _ = chatserver(database, "check", KEY_PEPPER=f"a pepper that is new,{old}")
    assert code == 0
    scoped = [each for each in said["peppers"] if each["keys"] == "scoped keys"]
    assert sorted((each["pepper"], each["count"]) for each in scoped) == [
        ("newest", 1), ("older", 1),
    ]  # fmt: skip
    newest = House(database, key_pepper="a pepper that is new")
    assert (await newest.container.identifier.identify(issued.key, door="rest")) == who
    with pytest.raises(Exception, match="not valid"):
        await newest.container.identifier.identify(idle.key, door="rest")
    await newest.container.database.close()
    # The master key was not used with both: its tenant would be locked out, and that is said.
    code, said, _ = chatserver(database, "check", KEY_PEPPER="a pepper that is new")
    assert code == 1
    assert said["unreadable"] == ["client_key.mac: 1 master keys under a pepper that is not set"]


async def test_a_report_of_an_erasure_can_be_checked_from_a_file(
    house: House, database: Database, tmp_path: Any
) -> None:
    master: Principal = await house.tenant()
    await house.person(master, "ann")
    async with house.container.open_privacy() as privacy:
        asked = await privacy.erase(master, PersonPath(external_id="ann"))
    await house.container.privacy.eraser.erase(asked.id)
    async with house.container.open_privacy() as privacy:
        shown = (await privacy.report(master, PersonPath(external_id="ann"))).model_dump_json()
    kept = tmp_path / "report.json"

    kept.write_text(shown)
    assert chatserver(database, "check", "--report", str(kept))[0] == 0
    kept.write_text(shown.replace('"user_id":"ann"', '"user_id":"bob"'))
    assert chatserver(database, "check", "--report", str(kept))[0] == 1
    assert chatserver(database, "check")[1]["signed_reports"] == 1


def test_peppers_of_a_list_are_each_long_enough(database: Database) -> None:
    values = {name.lower(): value for name, value in database.settings().items()}
    settings = load(**values | {"key_pepper": "first pepper,second pepper"})
    assert [it.get_secret_value() for it in settings.key_peppers] == [
        "first pepper", "second pepper",
    ]  # fmt: skip
    with pytest.raises(Exception, match="KEY_PEPPER"):
        load(**values | {"key_pepper": "first pepper,short"})
