"""Demo data on a real database, made and removed by the command itself."""

import time
from typing import Any

import asyncpg
import pytest

from tests.support.cli import Cli, Ran
from tests.support.servers import Database, run, run_sql

COUNTS = (
    *("users", "rooms", "members", "messages", "reactions", "documents"),
    *("events", "documents_known", "known"),
)
FULL = ("app_user", "room", "member", "message", "room_event", "bot", "document", "reaction")

# What others made looks like it, and one of its people was taken into another room.
STRANGER = """insert into app_user (id, client_id, external_id)
select gen_random_uuid(), id, 'seed-stranger' from client"""
ROOM_LIKE_IT = """insert into room (id, client_id, type, external_id, history, is_active, epoch,
  members_count)
select gen_random_uuid(), id, 'group', 'seed-like', 'all', true, 1, 1 from client"""
SEAT_ELSEWHERE = """insert into member (room_id, user_id, client_id, role, is_muted, is_favorite,
  notification_level) select r.id, u.id, r.client_id, 'member', false, false, 'all'
from room r, app_user u where r.external_id = 'seed-like' and u.external_id = 'seed-ada'"""


class Seeding:
    def __init__(self, cli: Cli, database: Database) -> None:
        self._cli = cli
        self.database = database

    def __call__(self, *arguments: str, **more: str) -> Ran:
        environment = self.database.settings() | more
        return self._cli("seed", *arguments, environment=environment)

    def json(self, *arguments: str) -> dict[str, Any]:
        ran = self(*arguments, "--json")
        assert (ran.code, ran.err) == (0, "")
        done: dict[str, Any] = ran.json()
        return done

    def count(self, *tables: str) -> list[int]:
        async def fetch() -> list[int]:
            connection = await asyncpg.connect(self.database.admin_url)
            try:
                return [
                    await connection.fetchval(f"select count(*) from {table}") for table in tables
                ]
            finally:
                await connection.close()

        return run(fetch())


@pytest.fixture
def seed(cli: Cli, database: Database) -> Seeding:
    return Seeding(cli, database)


def test_small_is_made_once_and_removed_again_but_for_what_others_made(seed: Seeding) -> None:
    first = seed.json()
    assert first["client"] == "seed"
    assert first["master_key"].startswith("csm_")
    made = {name: first[name] for name in COUNTS[:6]}
    assert (made["users"], made["rooms"], made["documents"]) == (20, 8, 3)
    assert made["messages"] > 200
    assert made["reactions"] > 10
    rows = seed.count(*FULL)

    again = seed.json()
    assert "master_key" not in again
    assert {name: again[name] for name in COUNTS[:6]} == dict.fromkeys(COUNTS[:6], 0)
    assert (again["documents_known"], again["known"] > 300) == (3, True)
    assert seed.count(*FULL) == rows
    assert "everything is there already" in seed().out

    run_sql(
        seed.database.admin_url,
        [
            STRANGER,
            ROOM_LIKE_IT,
            SEAT_ELSEWHERE,
        ],
    )
    removed = seed.json("--clear")["removed"]
    assert removed == {"documents": 3, "rooms": 8, "users": 19}
    assert seed.count(*FULL) == [2, 1, 1, 0, 0, 0, 0, 0]
    assert seed.json("--clear")["removed"] == {"documents": 0, "rooms": 0, "users": 0}
    assert "nothing was there" in seed("--clear", "--client", "nobody").out

    back = seed.json()
    assert (back["users"], back["messages"]) == (19, made["messages"])


def test_each_half_can_be_made_and_removed_alone(seed: Seeding) -> None:
    done = seed.json("--documents-only")
    assert (done["documents"], "rooms" in done) == (3, False)
    assert seed.count("room", "document") == [0, 3]
    assert "documents" not in seed.json("--conversations-only", "--client", "seed")
    assert seed.count("room", "document") == [8, 3]
    assert seed.json("--clear", "--documents-only")["removed"] == {"documents": 3}
    assert seed.count("room", "document") == [8, 0]
    ran = seed("--documents-only", "--conversations-only")
    assert (ran.code, "not both" in ran.err) == (2, True)


def test_in_production_it_is_refused_in_a_sentence(seed: Seeding) -> None:
    strong = dict.fromkeys(("OPERATOR_KEY", "KEY_PEPPER", "SECRET_KEYS"), "x" * 40)
    for arguments in ((), ("--clear",)):
        ran = seed(*arguments, ENVIRONMENT="production", **strong)
        assert (ran.code, ran.out) == (1, "")
        assert "ENVIRONMENT=staging" in ran.err
    assert seed.count("client") == [0]


@pytest.mark.soak
def test_small_takes_less_than_two_seconds(seed: Seeding) -> None:
    """Counted in seconds of this process, so that it says the same on a machine that is busy."""
    seed.json("--clear")  # whatever is only loaded once
    before = time.process_time()
    assert seed.json()["rooms"] == 8
    assert time.process_time() - before < 2
