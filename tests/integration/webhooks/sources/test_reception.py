"""Whoever is let in is kept once, whoever is not learns nothing."""

import asyncio
import base64
import hmac
import secrets
import statistics
from typing import Any

import orjson
import pytest

from chatserver.kernel.clock import utc_now
from chatserver.webhooks.sources.schemas import SecretAdd, SecretPath, SourcePath, SourceUpdate
from tests.integration.webhooks.sources.conftest import SECRET, Shop, basic
from tests.support.nodes import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refusals(shop: Shop, source_id: Any, count: int = 1) -> list[Any]:
    async def seen() -> list[Any] | None:
        async with shop.house.container.sources.open_history() as history:
            found = (await history.refusals(shop.master, SourcePath(id=source_id))).items
        return found if len(found) >= count else None

    return list(await eventually(seen, why="the refusal is explained", within_s=10))


def said_alike(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name != "trace_id"}


class TestOnce:
    async def test_an_event_is_stored_once_and_a_repeat_says_so(self, shop: Shop) -> None:
        source = await shop.source()
        first = await shop.send({"n": 1}, name="one")
        assert first[:2] == (200, {"id": first[1]["id"], "duplicate": False})
        again = await shop.send({"n": 1}, name="one")
        assert again[:2] == (200, {"id": first[1]["id"], "duplicate": True})
        assert [it.external_id for it in await shop.events(source.id)] == ["one"]

    async def test_many_at_once_with_one_id_are_one(self, shop: Shop) -> None:
        source = await shop.source()
        answers = await asyncio.gather(*(shop.send({"n": 1}, name="same") for _ in range(30)))
        assert {status for status, _, _ in answers} == {200}
        assert sum(not said["duplicate"] for _, said, _ in answers) == 1
        assert len({said["id"] for _, said, _ in answers}) == 1
        assert len(await shop.events(source.id)) == 1

    async def test_the_same_id_is_another_event_for_another_source(self, shop: Shop) -> None:
        await shop.source()
        await shop.source("other")
        await shop.took({"n": 1}, name="one")
        assert (await shop.send({"n": 1}, slug="other", name="one"))[1]["duplicate"] is False

    @pytest.mark.parametrize(
        ("dedupe", "second", "is_duplicate"),
        [
            ({"body": True}, {"n": 1}, True),
            ({"body": True}, {"n": 2}, False),
            ({"path": "$.id"}, {"id": "a", "n": 2}, True),
            ({"path": "$.id"}, {"id": "b", "n": 1}, False),
            ({"header": "x-id"}, {"n": 2}, True),
        ],
    )
    async def test_what_makes_two_requests_the_same_event(
        self, shop: Shop, dedupe: dict[str, Any], second: Any, is_duplicate: bool
    ) -> None:
        await shop.source(dedupe=dedupe)
        first = {"id": "a", "n": 1} if "path" in dedupe else {"n": 1}
        await shop.took(first, X_Id="7")
        assert (await shop.send(second, X_Id="7"))[1]["duplicate"] is is_duplicate

    async def test_the_answer_comes_within_its_time(self, shop: Shop) -> None:
        await shop.source()
        await shop.took({"n": 0})
        took = [(await shop.send({"n": n}))[2] for n in range(20)]
        assert statistics.median(took) < 0.1

    async def test_what_is_kept_holds_no_credentials(self, shop: Shop) -> None:
        await shop.source("b", scheme="basic", secrets=["shop:open sesame"])
        event = await shop.event(
            await shop.took(
                {"n": 1}, slug="b", Authorization=basic("shop:open sesame"), X_Topic="t"
            )
        )
        assert "authorization" not in event.headers
        assert event.headers["x-topic"] == "t"
        assert event.secret_hint == "…same"
        assert event.body == '{"n":1}'

    async def test_a_form_with_files_is_an_event_of_its_fields(self, shop: Shop) -> None:
        await shop.source()
        body = (
            b'--x\r\nContent-Disposition: form-data; name="subject"\r\n\r\nH\xc3\xa9llo\r\n'
            b'--x\r\nContent-Disposition: form-data; name="attachment-1"; filename="a.pdf"\r\n'
            b"Content-Type: application/pdf\r\n\r\n%PDF-1.4\r\n--x--\r\n"
        )
        event_id = await shop.took(body, Content_Type="multipart/form-data; boundary=x")
        file = {"filename": "a.pdf", "content_type": "application/pdf", "size": 8}
        assert (await shop.event(event_id)).payload == {"subject": "Héllo", "attachment-1": file}

    async def test_a_source_that_goes_meanwhile_is_as_unknown_as_any(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = await shop.source()
        reception = shop.house.container.sources.reception
        find = reception._lookup.find

        async def found_and_gone(client_slug: str, slug: str) -> Any:
            found = await find(client_slug, slug)
            async with shop.house.container.sources.open_sources() as sources:
                await sources.delete(shop.master, SourcePath(id=source.id))
            return found

        monkeypatch.setattr(reception._lookup, "find", found_and_gone)
        status, said, _ = await shop.send({"n": 1})
        assert (status, said["code"]) == (401, "webhook.refused")


class TestRefused:
    async def test_nobody_learns_why(self, shop: Shop) -> None:
        await shop.source()
        await shop.source("asleep", is_active=False)
        answers = [
            await shop.send({"n": 1}, secret="wrong secret"),
            await shop.send({"n": 1}, slug="nothing-here"),
            await shop.send({"n": 1}, slug="asleep"),
            await shop.send({"n": 1}, client="nobody-here"),
            await shop.send({"n": 1}, X_Hub_Signature_256="sha256=00"),
            await shop.send({"n": 1}, X_Hub_Signature_256="junk"),
        ]
        assert {status for status, _, _ in answers} == {401}
        assert len({orjson.dumps(said_alike(said)) for _, said, _ in answers}) == 1
        assert answers[0][1]["code"] == "webhook.refused"

    async def test_and_nobody_can_tell_by_the_time_it_takes(self, shop: Shop) -> None:
        await shop.source()
        big = {"x": "y" * 200_000}
        times: dict[str, list[float]] = {"shop": [], "nothing-here": []}
        for _ in range(12):
            for slug, took in times.items():
                took.append((await shop.send(big, slug=slug, secret="wrong secret"))[2])
        known, unknown = (statistics.median(took) for took in times.values())
        assert min(*times["shop"], *times["nothing-here"]) >= 0.045
        assert abs(known - unknown) < 0.015

    async def test_a_disabled_clients_sources_are_gone(self, shop: Shop) -> None:
        await shop.source()
        await shop.house.change(
            "update client set status = 'disabled' where id = :id", id=shop.master.client_id
        )
        assert (await shop.send({"n": 1}))[0] == 401

    @pytest.mark.parametrize("size", [1024 * 1024, 1024 * 1024 + 1])
    async def test_a_megabyte_and_no_more(self, shop: Shop, size: int) -> None:
        await shop.source()
        status, said, _ = await shop.send(b"x" * size)
        assert status == (200 if size <= 1024 * 1024 else 413), said

    async def test_packed_bodies_are_refused_for_all_alike(self, shop: Shop) -> None:
        await shop.source()
        answers = [await shop.send({}, slug=it, Content_Encoding="gzip") for it in ("shop", "none")]
        assert [status for status, _, _ in answers] == [415, 415]

    async def test_a_stale_request_is_no_repeat(self, shop: Shop) -> None:
        key = base64.b64encode(b"k" * 24).decode()
        await shop.source("std", scheme="standard", secrets=[f"whsec_{key}"])

        def headers(at: int) -> dict[str, str]:
            signed = hmac.digest(b"k" * 24, b"m1.%d." % at + b"{}", "sha256")
            return {
                "webhook_id": "m1",
                "webhook_timestamp": str(at),
                "webhook_signature": f"v1,{base64.b64encode(signed).decode()}",
            }

        now = int(utc_now().timestamp())
        assert (await shop.send(b"{}", slug="std", **headers(now)))[0] == 200
        assert (await shop.send(b"{}", slug="std", **headers(now - 200)))[1]["duplicate"] is True
        assert (await shop.send(b"{}", slug="std", **headers(now - 400)))[0] == 401
        assert (await shop.send(b"{}", slug="std", **headers(now + 400)))[0] == 401

    async def test_too_many_of_one_source(self, shop: Shop) -> None:
        await shop.source(rate_per_s=0.1, rate_burst=3)
        answers = [await shop.send({"n": n}) for n in range(5)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429, 429]
        assert answers[-1][1]["retryable"] is True
        await shop.source("other")
        assert (await shop.send({"n": 1}, slug="other"))[0] == 200


class TestMailgun:
    async def test_a_retry_of_hours_ago_counts_once_and_what_is_too_old_is_ended(
        self, shop: Shop
    ) -> None:
        await shop.source("mail", scheme="mailgun", secrets=["signing-key"])

        def signed(age_s: int, token: str) -> bytes:
            at = str(int(utc_now().timestamp()) - age_s)
            mac = hmac.digest(b"signing-key", (at + token).encode(), "sha256").hex()
            block = {"timestamp": at, "token": token, "signature": mac}
            return orjson.dumps({"signature": block, "event-data": {"event": "delivered"}})

        # Before a source is known to work, 406 would end what a typo broke.
        assert (await shop.send(signed(10 * 3600, "t0"), slug="mail"))[0] == 401
        late = signed(7 * 3600, "t1")
        assert (await shop.send(late, slug="mail"))[:2][0] == 200
        assert (await shop.send(late, slug="mail"))[1]["duplicate"] is True
        status, said, _ = await shop.send(signed(10 * 3600, "t2"), slug="mail")
        assert (status, said["code"]) == (406, "webhook.too_late")
        forged = signed(0, "t3").replace(b'"t3"', b'"t4"')
        assert (await shop.send(forged, slug="mail"))[0] == 401


async def test_slack_asks_once_whether_the_address_is_ours(shop: Shop) -> None:
    source = await shop.source("slack", scheme="slack", secrets=["signing-secret"])
    body = orjson.dumps({"type": "url_verification", "challenge": "3eZbrw1aBm2r"})
    at = str(int(utc_now().timestamp()))
    mac = hmac.digest(b"signing-secret", f"v0:{at}:".encode() + body, "sha256").hex()
    headers = {"X_Slack_Request_Timestamp": at, "X_Slack_Signature": f"v0={mac}"}
    assert (await shop.send(body, slug="slack", **headers))[:2] == (
        200,
        {"challenge": "3eZbrw1aBm2r"},
    )
    assert await shop.events(source.id) == []


class TestSecrets:
    async def test_a_secret_is_replaced_while_both_sign(self, shop: Shop) -> None:
        source = await shop.source()
        async with shop.house.container.sources.open_sources() as sources:
            added = await sources.add_secret(
                shop.master, SecretAdd(id=source.id, expire_others_in_s=3600)
            )
        assert added.secret is not None
        assert (await shop.send({"n": 1}, secret=SECRET))[0] == 200
        assert (await shop.send({"n": 2}, secret=added.secret))[0] == 200
        old = next(it for it in added.secrets if it.id != added.added.id)
        async with shop.house.container.sources.open_sources() as sources:
            await sources.end_secret(shop.master, SecretPath(id=source.id, secret_id=old.id))
        assert (await shop.send({"n": 3}, secret=SECRET))[0] == 401
        [found] = await refusals(shop, source.id)
        assert found.reason == "secret_ended"

    async def test_no_row_holds_one_in_the_open(self, shop: Shop) -> None:
        canary = f"canary-{secrets.token_hex(8)}"
        await shop.source(secrets=[canary])
        await shop.send({"n": 1}, secret=canary)
        rows = await shop.house.rows(
            "select sealed, hint from inbound_secret where client_id = :id",
            id=shop.master.client_id,
        )
        assert all(canary.encode() not in bytes(row["sealed"]) for row in rows)
        assert [row["hint"] for row in rows] == [f"…{canary[-4:]}"]


class TestDebugger:
    async def test_the_owner_is_told_what_was_wrong(self, shop: Shop) -> None:
        source = await shop.source()
        payload = {"b": 1, "a": "ü/"}
        compact = orjson.dumps(payload)
        mac = hmac.digest(SECRET.encode(), compact, "sha256").hex()
        spaced = b'{"b": 1, "a": "\\u00fc/"}'
        await shop.send(spaced, X_Hub_Signature_256=f"sha256={mac}")
        [found] = await refusals(shop, source.id)
        assert found.reason == "body_reencoded"
        assert "compact JSON" in found.explanation

        await shop.send(payload, secret="somebody else's")
        assert (await refusals(shop, source.id, 2))[0].reason == "wrong_secret"
        sha1 = hmac.digest(SECRET.encode(), compact, "sha1").hex()
        await shop.send(compact, X_Hub_Signature_256=f"sha256={sha1}")
        assert (await refusals(shop, source.id, 3))[0].reason == "wrong_algorithm"

    async def test_a_flood_writes_few_rows_and_counts_the_rest(self, shop: Shop) -> None:
        source = await shop.source()
        await asyncio.gather(*(shop.send({"n": n}, secret="wrong secret") for n in range(60)))
        found = await refusals(shop, source.id, 10)
        assert len(found) == 10
        assert sum(it.count for it in found) <= 60

    async def test_nothing_of_the_request_is_kept(self, shop: Shop) -> None:
        source = await shop.source()
        await shop.send({"card": "4111-canary"}, secret="wrong secret")
        [found] = await refusals(shop, source.id)
        assert "4111" not in found.model_dump_json()


async def test_a_change_of_a_source_counts_at_once(shop: Shop) -> None:
    source = await shop.source()
    async with shop.house.container.sources.open_sources() as sources:
        await sources.update(shop.master, SourceUpdate(id=source.id, is_active=False))
    assert (await shop.send({"n": 1}))[0] == 401
