"""`Idempotency-Key` on a real PostgreSQL: a write is done once, and answered as often as asked."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from chatserver.infra.database import Database
from chatserver.infra.idempotency import (
    RUNNING,
    Held,
    IdempotencyStore,
    Kept,
    KeyUse,
    Running,
    made_before,
    remember_made,
)
from chatserver.infra.secrets import SecretBox
from chatserver.kernel.errors import (
    IdempotencyConflictError,
    IdempotencyRunningError,
    RateLimitedError,
    UnavailableError,
)
from tests.support.rest import CLIENT, SOME_ID, BoxFullError, Door, running
from tests.support.servers import Database as Address

SOME_MADE = UUID("019a9c1e-0000-7000-8000-0000000000aa")
BOXES = "/api/v1/boxes"
Rows: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
ANOTHER_CLIENT = UUID("019a9c1e-0000-7000-8000-0000000000ff")


@pytest.fixture
def box() -> SecretBox:
    return SecretBox([os.urandom(32)])


@pytest.fixture
async def opened(database: Address) -> AsyncIterator[Database]:
    made = Database(database.app_url, name="test", pool_size=5)
    yield made
    await made.close()


@pytest.fixture
def store(opened: Database, box: SecretBox) -> IdempotencyStore:
    return IdempotencyStore(opened, box)


@pytest.fixture
async def door(store: IdempotencyStore) -> AsyncIterator[Door]:
    async with running(store=store) as started:
        yield started


@pytest.fixture
async def rows(database: Address) -> AsyncIterator[Rows]:
    connection = await asyncpg.connect(database.admin_url)
    yield connection
    await connection.close()


async def make(door: Door, key: str, name: str = "tools", who: str = "alice") -> Any:
    return await door.ask("POST", BOXES, who, json={"name": name}, headers={"Idempotency-Key": key})


class TestReplay:
    async def test_a_repeat_gets_the_first_answer_and_does_nothing(self, door: Door) -> None:
        first, again = await make(door, "k"), await make(door, "k")
        assert (first[0], again[0]) == (201, 201)
        assert again[1] == first[1]
        assert "Idempotency-Replayed" not in first[2].headers
        assert again[2].headers["Idempotency-Replayed"] == "true"
        assert again[2].content_type == "application/json"
        assert door.boxes.made == ["tools"]

    async def test_the_order_of_members_and_spaces_make_no_other_body(self, door: Door) -> None:
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        for body in ('{"name":"a","owner":"o"}', '{ "owner": "o", "name": "a" }'):
            status, *_ = await door.ask("POST", BOXES, data=body, headers=headers)
            assert status == 201
        assert door.boxes.made == ["a"]

    async def test_another_body_or_path_is_a_conflict(self, door: Door) -> None:
        await make(door, "k")
        status, body, _ = await make(door, "k", "other")
        assert (status, body["code"]) == (422, "idempotency.conflict")
        headers = {"Idempotency-Key": "k"}
        status, body, _ = await door.ask(
            "PATCH", f"{BOXES}/{SOME_ID}", json={"name": "tools"}, headers=headers
        )
        assert (status, body["code"]) == (422, "idempotency.conflict")
        assert door.boxes.made == ["tools"]

    async def test_every_write_takes_a_key_and_reads_ignore_it(self, door: Door) -> None:
        for method, path, sent in (
            ("PATCH", f"{BOXES}/{SOME_ID}", {"name": "a"}),
            ("PUT", f"{BOXES}/{SOME_ID}/things/saw", {}),
            ("DELETE", f"{BOXES}/{SOME_ID}", None),
        ):
            headers = {"Idempotency-Key": method}
            for replayed in (None, "true"):
                status, _, response = await door.ask(method, path, json=sent, headers=headers)
                assert status == 200
                assert response.headers.get("Idempotency-Replayed") == replayed
        for _ in range(2):
            _, _, response = await door.ask("GET", BOXES, headers={"Idempotency-Key": "DELETE"})
            assert "Idempotency-Replayed" not in response.headers

    async def test_a_definite_refusal_is_an_answer_too(self, door: Door) -> None:
        door.boxes.fails = BoxFullError()
        first = await make(door, "k")
        door.boxes.fails = None
        status, body, response = await make(door, "k")
        assert (status, body) == (409, first[1])
        assert response.content_type == "application/problem+json"
        assert response.headers["Idempotency-Replayed"] == "true"
        assert door.boxes.made == []

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (UnavailableError(), 503),
            (RateLimitedError(retry_after_ms=10), 429),
            (RuntimeError("a bug"), 500),
        ],
    )
    async def test_what_may_come_out_otherwise_frees_the_key(
        self, door: Door, error: Exception, status: int
    ) -> None:
        door.boxes.fails = error
        assert (await make(door, "k"))[0] == status
        door.boxes.fails = None
        again = await make(door, "k")
        assert again[0] == 201
        assert "Idempotency-Replayed" not in again[2].headers

    async def test_what_was_refused_at_the_door_does_not_use_the_key_up(self, door: Door) -> None:
        headers = {"Idempotency-Key": "k"}
        assert (await door.ask("POST", BOXES, json={"nam": "a"}, headers=headers))[0] == 422
        assert (await door.ask("POST", BOXES, "bob", json={"name": "a"}, headers=headers))[0] == 403
        assert (await make(door, "k"))[0] == 201

    @pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 129])
    async def test_a_key_must_be_short_visible_ascii(self, door: Door, key: str) -> None:
        status, body, _ = await make(door, key)
        assert (status, body["code"]) == (422, "payload.invalid")
        assert body["errors"][0]["field"] == "Idempotency-Key"
        assert (await make(door, "x" * 128))[0] == 201


class TestScope:
    async def test_a_key_belongs_to_the_caller_not_to_his_credential(self, door: Door) -> None:
        await make(door, "k")
        again = await make(door, "k", who="alice2")
        assert again[2].headers["Idempotency-Replayed"] == "true"
        assert door.boxes.made == ["tools"]

    async def test_other_callers_with_the_same_key_do_not_meet(self, door: Door) -> None:
        await make(door, "k")
        status, _, response = await make(door, "k", "other", who="master")
        assert status == 201
        assert "Idempotency-Replayed" not in response.headers
        headers = {"Idempotency-Key": "k"}
        for _ in range(2):
            assert (await door.ask("POST", "/api/v1/count", "operator", headers=headers))[0] == 200
        assert [caller.name for caller in door.boxes.callers] == ["alice", "master", "operator"]


class TestRace:
    async def test_twenty_at_once_execute_once(self, door: Door) -> None:
        door.boxes.gate = asyncio.Event()
        asking = [asyncio.create_task(make(door, "k")) for _ in range(20)]
        done, _ = await asyncio.wait(asking, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 19:
            more, _ = await asyncio.wait(
                set(asking) - done, timeout=10, return_when=asyncio.FIRST_COMPLETED
            )
            assert more
            done |= more
        door.boxes.gate.set()
        answers = await asyncio.gather(*asking)
        statuses = sorted(status for status, *_ in answers)
        assert statuses == [201] + [409] * 19
        assert door.boxes.made == ["tools"]
        for status, body, response in answers:
            if status == 409:
                assert body["code"] == "idempotency.in_progress"
                assert body["retryable"]
                assert int(response.headers["Retry-After"]) >= 1
        assert (await make(door, "k"))[2].headers["Idempotency-Replayed"] == "true"

    async def test_free_running_repeats_execute_once(self, door: Door) -> None:
        answers = await asyncio.gather(*(make(door, "k") for _ in range(20)))
        assert {status for status, *_ in answers} <= {201, 409}
        assert door.boxes.made == ["tools"]


def use(key: str = "k", content: bytes = b"1", client: UUID = CLIENT) -> KeyUse:
    return KeyUse(client, "user:alice", key, content)


class TestStore:
    async def test_an_answer_is_sealed(self, store: IdempotencyStore, rows: Rows) -> None:
        held = await store.begin(use())
        assert isinstance(held, Held)
        await store.keep(held, 201, b'{"key":"csu_very_secret"}')
        sealed = await rows.fetchval("select answer from idempotency")
        assert b"secret" not in sealed
        assert await store.begin(use()) == Kept(201, b'{"key":"csu_very_secret"}')

    async def test_a_sealed_answer_does_not_open_in_another_place(
        self, store: IdempotencyStore, rows: Rows
    ) -> None:
        held = await store.begin(use())
        assert isinstance(held, Held)
        await store.keep(held, 201, b"{}")
        await rows.execute("update idempotency set client_id = $1", ANOTHER_CLIENT)
        with pytest.raises(Exception, match="belongs elsewhere"):
            await store.begin(use(client=ANOTHER_CLIENT))

    async def test_a_dead_holder_frees_the_key_after_its_lock(
        self, store: IdempotencyStore, rows: Rows
    ) -> None:
        dead = await store.begin(use())
        assert isinstance(dead, Held)
        with pytest.raises(IdempotencyRunningError) as running_error:
            await store.begin(use())
        assert 100 <= (running_error.value.retry_after_ms or 0) <= 1000
        left = await rows.fetchval(
            "select extract(epoch from locked_until - clock_timestamp()) from idempotency"
        )
        assert 20 < left <= 30
        await rows.execute("update idempotency set locked_until = clock_timestamp()")
        # For something else the key is not free: nobody knows what the first request did.
        with pytest.raises(IdempotencyConflictError):
            await store.begin(use(content=b"2"))
        heir = await store.begin(use())
        assert isinstance(heir, Held)
        # Whoever was taken over can't answer or let go any more.
        await store.keep(dead, 201, b"late")
        await store.release(dead)
        with pytest.raises(IdempotencyRunningError):
            await store.begin(use())
        await store.keep(heir, 200, b"heir")
        assert await store.begin(use()) == Kept(200, b"heir")

    async def test_after_a_day_a_key_is_new_again(
        self, store: IdempotencyStore, rows: Rows
    ) -> None:
        held = await store.begin(use())
        assert isinstance(held, Held)
        await store.keep(held, 201, b"{}")
        await rows.execute("update idempotency set created_at = created_at - interval '23 hours'")
        assert await store.begin(use()) == Kept(201, b"{}")
        await rows.execute("update idempotency set created_at = created_at - interval '61 minutes'")
        assert isinstance(await store.begin(use(content=b"2")), Held)

    async def test_without_postgresql_a_write_with_a_key_is_unavailable(
        self, box: SecretBox
    ) -> None:
        away = Database("postgresql://x:y@127.0.0.1:1/z", name="test")
        async with running(store=IdempotencyStore(away, box)) as door:
            status, body, _ = await make(door, "k")
            assert (status, body["code"]) == (503, "unavailable")
            assert door.boxes.made == []
        await away.close()

    async def test_an_answer_that_could_not_be_kept_is_given_all_the_same(
        self, store: IdempotencyStore, box: SecretBox
    ) -> None:
        held = await store.begin(use())
        assert isinstance(held, Held)
        away = Database("postgresql://x:y@127.0.0.1:1/z", name="test")
        await IdempotencyStore(away, box).keep(held, 201, b"{}")
        await away.close()
        with pytest.raises(IdempotencyRunningError):
            await store.begin(use())


class TestWhatWasMade:
    """A request that ties what it makes to its key, in the transaction that makes it."""

    USE = KeyUse(CLIENT, "master:None", "k", b"h" * 32)

    async def made(self, opened: Database, held: Held) -> UUID:
        """Make something under a key; nobody lives to write down the answer."""
        token = RUNNING.set(Running(held))
        try:
            async with opened.transaction() as session:
                await remember_made(session, SOME_MADE)
        finally:
            RUNNING.reset(token)
        return SOME_MADE

    async def first(self, store: IdempotencyStore) -> Held:
        held = await store.begin(self.USE)
        assert isinstance(held, Held)
        assert held.made is None
        return held

    async def test_who_takes_over_from_a_dead_one_learns_of_it(
        self, store: IdempotencyStore, opened: Database, rows: Rows
    ) -> None:
        made = await self.made(opened, await self.first(store))
        with pytest.raises(IdempotencyRunningError):
            await store.begin(self.USE)
        await rows.execute("update idempotency set locked_until = now() - interval '1 s'")
        again = await store.begin(self.USE)
        assert isinstance(again, Held)
        assert again.made == made

    async def test_what_was_committed_without_an_answer_is_found_at_once(
        self, store: IdempotencyStore, opened: Database
    ) -> None:
        held = await self.first(store)
        made = await self.made(opened, held)
        # The commit was done, and its answer lost: to the door it looks as if nothing came of it.
        await store.release(held)
        again = await store.begin(self.USE)
        assert isinstance(again, Held)
        assert again.made == made

    async def test_who_slept_too_long_makes_nothing_a_second_time(
        self, store: IdempotencyStore, opened: Database, rows: Rows
    ) -> None:
        asleep = await self.first(store)
        await rows.execute("update idempotency set locked_until = now() - interval '1 s'")
        await self.first(store)
        with pytest.raises(IdempotencyRunningError):
            await self.made(opened, asleep)

    async def test_after_a_day_the_key_is_new(
        self, store: IdempotencyStore, opened: Database, rows: Rows
    ) -> None:
        await self.made(opened, await self.first(store))
        await rows.execute(
            "update idempotency set locked_until = now() - interval '1 s',"
            " created_at = now() - interval '25 h'"
        )
        await self.first(store)

    async def test_without_a_key_nothing_is_tied(self, opened: Database, rows: Rows) -> None:
        async with opened.transaction() as session:
            await remember_made(session, SOME_MADE)
        assert made_before() is None
        assert await rows.fetchval("select count(*) from idempotency") == 0
