from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import text

from chatserver.infra.database import Database
from chatserver.infra.job_kinds import TRIM_RECORDS
from chatserver.infra.jobs import Claim
from tests.integration.workers.conftest import Rows
from workers import records
from workers.records import RecordJobs

CLIENT = "00000000-0000-0000-0000-000000000001"
USER = "00000000-0000-0000-0000-000000000002"

CLAIM = Claim(
    id=UUID(int=3),
    kind=TRIM_RECORDS.name,
    client_id=None,
    payload={},
    attempt=1,
    fence=1,
    lease_s=30.0,
)
Read = Callable[[str], Awaitable[Rows]]


@pytest.fixture(autouse=True)
async def people(database: Database) -> None:
    await run(
        database,
        f"insert into client (id, slug, name, status) values ('{CLIENT}', 'a', 'A', 'active')",
        f"insert into app_user (id, client_id, external_id) values ('{USER}', '{CLIENT}', 'alice')",
    )


async def run(database: Database, *statements: str) -> None:
    async with database.transaction() as session:
        for statement in statements:
            await session.execute(text(statement))


async def test_answers_are_remembered_for_a_day(database: Database, read: Read) -> None:
    for key, age in (("young", "23 hours"), ("old", "25 hours")):
        await run(
            database,
            "insert into idempotency (client_id, caller, key, request_hash, created_at)"
            f" values ('{CLIENT}', 'master', '{key}', '', now() - interval '{age}')",
        )
    await RecordJobs(database=database).trim(CLAIM)
    assert await read("select key from idempotency") == [{"key": "young"}]


async def test_departures_are_kept_for_ninety_days(database: Database, read: Read) -> None:
    for age in (89, 91):
        await run(
            database,
            "insert into departure (room_id, user_id, client_id, reason, at)"
            f" values (gen_random_uuid(), '{USER}', '{CLIENT}', 'left',"
            f" now() - interval '{age} days')",
        )
    await RecordJobs(database=database).trim(CLAIM)
    (kept,) = await read("select at > now() - interval '90 days' as is_young from departure")
    assert kept == {"is_young": True}


async def test_ended_jobs_are_kept_for_a_week_and_others_for_ever(
    database: Database, read: Read
) -> None:
    ended = {"old": "'8 days'", "young": "'6 days'", "waiting": None}
    for name, age in ended.items():
        await run(
            database,
            "insert into job (id, kind, dedupe, state, attempt, created_at, ended_at)"
            f" values (gen_random_uuid(), 'test', '{name}', 'done', 1, now() - interval '1 year',"
            f" {f'now() - interval {age}' if age else 'null'})",
        )
    await RecordJobs(database=database).trim(CLAIM)
    assert await read("select dedupe from job order by dedupe") == [
        {"dedupe": "waiting"},
        {"dedupe": "young"},
    ]


async def test_retired_keys_are_the_last_64_of_at_most_ninety_days(
    database: Database, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "SLICE", 2)
    for kid, generation in (("k1", 100), ("k2", 3), ("k3", 3), ("k4", 70), ("k5", 2)):
        await run(
            database,
            "insert into key_family (kid, client_id, user_id, device_id, scopes, rotation, status,"
            " cur_gen, cur_id, cur_mac, idle_expires_at, abs_expires_at, pepper_id, epoch)"
            f" values ('{kid}', '{CLIENT}', '{USER}', '{kid}', '{{}}', 'always', 'active',"
            f" {generation}, gen_random_uuid(), '', now(), now(), 1, 0)",
            "insert into key_retired (kid, gen, client_id, mac, key_id, reason, valid_until)"
            f" select '{kid}', gen, '{CLIENT}', '', gen_random_uuid(), 'rotated', now()"
            f" from generate_series(1, {generation - 1}) gen",
        )
    await run(
        database,
        "update key_retired set retired_at = now() - interval '91 days'"
        " where (kid, gen) in (('k2', 1), ('k5', 1))",
    )
    await RecordJobs(database=database).trim(CLAIM)
    kept = await read(
        "select kid, min(gen) as first, count(*) as number from key_retired"
        " group by kid order by kid"
    )
    assert kept == [
        {"kid": "k1", "first": 36, "number": 64},
        {"kid": "k2", "first": 2, "number": 1},
        {"kid": "k3", "first": 1, "number": 2},
        {"kid": "k4", "first": 6, "number": 64},
    ]


async def test_a_device_that_ended_for_good_is_forgotten_with_all_of_its_keys(
    database: Database, read: Read
) -> None:
    for kid, ended in (("alive", "-1 day"), ("expired", "89 days"), ("gone", "91 days")):
        await run(
            database,
            "insert into key_family (kid, client_id, user_id, device_id, scopes, rotation, status,"
            " cur_gen, cur_id, cur_mac, idle_expires_at, abs_expires_at, pepper_id, epoch)"
            f" values ('{kid}', '{CLIENT}', '{USER}', '{kid}', '{{}}', 'always', 'active', 2,"
            f" gen_random_uuid(), '', now(), now() - interval '{ended}', 1, 0)",
            "insert into key_retired (kid, gen, client_id, mac, key_id, reason, valid_until)"
            f" values ('{kid}', 1, '{CLIENT}', '', gen_random_uuid(), 'rotated', now())",
        )
    await RecordJobs(database=database).trim(CLAIM)
    kept = [{"kid": "alive"}, {"kid": "expired"}]
    assert await read("select kid from key_family order by kid") == kept
    assert await read("select kid from key_retired order by kid") == kept


async def test_what_was_set_aside_goes_after_thirty_days_and_what_waits_never(
    database: Database, read: Read
) -> None:
    for name, since in (("waits", None), ("young", "'29 days'"), ("old", "'31 days'")):
        await run(
            database,
            "insert into outbox (client_id, fact_id, type, created_at, set_aside_at)"
            f" values ('{CLIENT}', gen_random_uuid(), '{name}', now() - interval '1 year',"
            f" {f'now() - interval {since}' if since else 'null'})",
        )
    await RecordJobs(database=database).trim(CLAIM)
    assert await read("select type from outbox order by type") == [
        {"type": "waits"},
        {"type": "young"},
    ]


async def test_what_bots_used_is_kept_for_four_hundred_days(database: Database, read: Read) -> None:
    for age in (399, 401):
        await run(
            database,
            "insert into ai_usage (client_id, bot_id, day, model, answers, prompt_tokens,"
            " completion_tokens, cost_micros)"
            f" values ('{CLIENT}', gen_random_uuid(), current_date - {age}, 'm', {age}, 0, 0, 0)",
        )
    await RecordJobs(database=database).trim(CLAIM)
    assert await read("select answers from ai_usage") == [{"answers": 399}]


async def test_more_than_a_slice_is_removed_in_one_go(
    database: Database, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "SLICE", 10)
    await run(
        database,
        "insert into idempotency (client_id, caller, key, request_hash, created_at)"
        f" select '{CLIENT}', 'master', n::text, '', now() - interval '2 days'"
        " from generate_series(1, 35) n",
    )
    await RecordJobs(database=database).trim(CLAIM)
    assert await read("select 1 from idempotency") == []


async def test_revoked_tokens_are_kept_for_as_long_as_one_could_live(
    database: Database, read: Read
) -> None:
    for jti, until in (("over", "- interval '1 minute'"), ("lives", "+ interval '1 hour'")):
        await run(
            database,
            "insert into revoked_token (client_id, handle, issuer, jti, kept_until)"
            f" values ('{CLIENT}', '{jti}'::bytea, 'i', '{jti}', now() {until})",
        )
    await RecordJobs(database=database).trim(CLAIM)
    assert await read("select jti from revoked_token") == [{"jti": "lives"}]
