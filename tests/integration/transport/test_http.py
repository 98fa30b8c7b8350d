"""The REST door, over real connections: what it takes, what it refuses and how it says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.transport.bodies import MAX_BODY
from tests.support.rest import SOME_ID, BoxFullError, Door, running

BOXES = "/api/v1/boxes"
HEAD = (
    f"POST {BOXES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n"
    "Content-Type: application/json\r\n"
).encode()
PROBLEM = {
    *("type", "title", "status", "detail", "code"),
    *("retryable", "retry_after_ms", "errors", "trace_id"),
}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with running() as started:
        yield started


def fields(problem: dict[str, Any]) -> list[str]:
    return [issue["field"] for issue in problem["errors"]]


class TestAnswers:
    async def test_a_body_reaches_the_operation_and_its_answer_comes_back(self, door: Door) -> None:
        status, body, response = await door.ask("POST", BOXES, json={"name": "tools"})
        assert (status, body["box"]["name"]) == (201, "tools")
        assert response.content_type == "application/json"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Server"] == "chatserver"

    async def test_what_was_there_already_is_200(self, door: Door) -> None:
        await door.ask("POST", BOXES, json={"name": "tools"})
        assert (await door.ask("POST", BOXES, json={"name": "tools"}))[0] == 200

    async def test_query_values_become_numbers_and_booleans(self, door: Door) -> None:
        status, body, _ = await door.ask(
            "GET", f"{BOXES}?page=2&size=5&colour=r%C3%A9d&is_open=true"
        )
        assert status == 200
        assert (body["page"], body["size"]) == (2, 5)
        assert body["items"][0]["name"] == "réd/True"

    async def test_path_and_body_make_one_request(self, door: Door) -> None:
        status, body, _ = await door.ask(
            "PUT", f"{BOXES}/{SOME_ID}/things/saw@1", json={"count": 3}
        )
        assert (status, body["name"]) == (200, "3 saw@1")

    async def test_a_write_without_a_body_is_an_empty_one(self, door: Door) -> None:
        status, body, _ = await door.ask("PATCH", f"{BOXES}/{SOME_ID}")
        assert (status, body["name"]) == (200, "unchanged")
        assert (await door.ask("POST", "/api/v1/count", "operator"))[0] == 200

    async def test_a_fixed_path_goes_before_a_placeholder(self, door: Door) -> None:
        status, body, _ = await door.ask("GET", f"{BOXES}/all", "master")
        assert (status, body["items"]) == (200, [])

    async def test_head_is_a_get_without_its_body(self, door: Door) -> None:
        status, body, response = await door.ask("HEAD", BOXES)
        assert (status, body) == (200, None)
        assert int(response.headers["Content-Length"]) > 0

    async def test_both_headers_take_a_key(self, door: Door) -> None:
        status, *_ = await door.ask("GET", BOXES, None, headers={"X-API-Key": "alice"})
        assert status == 200

    async def test_identify_hears_where_the_request_comes_from(self, door: Door) -> None:
        headers = {"X-Client": "acme", "X-Forwarded-For": "6.6.6.6", "Origin": "https://a.example"}
        await door.ask("GET", BOXES, headers=headers)
        sender = door.callers.senders[-1]
        assert (sender.address, sender.client_slug) == ("127.0.0.1", "acme")
        assert sender.origin == "https://a.example"


class TestRequestId:
    async def test_it_is_echoed_and_stands_in_refusals(self, door: Door) -> None:
        _, body, response = await door.ask("GET", "/nothing", headers={"X-Request-Id": "order-17"})
        assert response.headers["X-Request-Id"] == "order-17"
        assert body["trace_id"] == "order-17"

    async def test_one_is_made_where_none_was_sent(self, door: Door) -> None:
        first = (await door.ask("GET", BOXES))[2].headers["X-Request-Id"]
        second = (await door.ask("GET", BOXES))[2].headers["X-Request-Id"]
        assert first != second

    async def test_it_is_bound_for_every_line_of_the_request(self, door: Door) -> None:
        door.boxes.fails = RuntimeError("boom")
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await door.ask("POST", BOXES, json={"name": "a"}, headers={"X-Request-Id": "two"})
        (failed,) = [line for line in lines if line["event"] == "request_failed"]
        assert (failed["request_id"], failed["client"]) == ("two", "acme")


class TestRefusals:
    async def test_it_is_problem_json_with_all_members(self, door: Door) -> None:
        status, body, response = await door.ask(
            "GET", f"{BOXES}/019a9c1e-0000-7000-8000-00000000ffff"
        )
        assert (status, body["code"]) == (404, "example.not_found")
        assert response.content_type == "application/problem+json"
        assert set(body) == PROBLEM
        assert response.headers["Cache-Control"] == "no-store"

    async def test_an_unknown_path_is_a_problem_too(self, door: Door) -> None:
        for path in ("/nothing", "/api/v1/nothing", "/api/v1/boxes/", "/api/v2/boxes", "//"):
            status, body, response = await door.ask("GET", path)
            assert (status, body["code"]) == (404, "route.not_found"), path
            assert response.content_type == "application/problem+json"

    async def test_another_method_is_405_and_tells_which_there_are(self, door: Door) -> None:
        status, body, response = await door.ask("PUT", BOXES)
        assert (status, body["code"]) == (405, "route.method_not_allowed")
        assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))
        assert (await door.ask("PROPFIND", BOXES))[0] == 405

    async def test_without_a_key_it_is_401_with_a_challenge(self, door: Door) -> None:
        for who in (None, "nobody"):
            status, body, response = await door.ask("POST", BOXES, who, json={"name": "a"})
            assert (status, body["code"]) == (401, "example.key_missing")
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert door.boxes.made == []

    async def test_a_missing_scope_and_the_wrong_credential_are_403(self, door: Door) -> None:
        for method, path, who in (
            ("POST", BOXES, "bob"),
            ("GET", f"{BOXES}/all", "alice"),
            ("POST", BOXES, "operator"),
            ("POST", "/api/v1/count", "master"),
        ):
            status, body, _ = await door.ask(method, path, who, json=None)
            assert (status, body["code"]) == (403, "auth.scope_missing"), (method, path, who)

    async def test_a_wait_is_told_in_seconds_too(self, door: Door) -> None:
        status, body, response = await door.ask("GET", BOXES, "flood")
        assert (status, body["code"], body["retry_after_ms"]) == (429, "rate.limited", 1500)
        assert response.headers["Retry-After"] == "2"
        status, body, response = await door.ask("GET", BOXES, "down")
        assert (status, body["retryable"], response.headers["Retry-After"]) == (503, True, "1")

    async def test_a_bug_is_500_and_is_not_explained(self, door: Door) -> None:
        door.boxes.fails = ZeroDivisionError("the secret of line 17")
        with capture_logs() as lines:
            status, body, _ = await door.ask("POST", BOXES, json={"name": "a"})
        assert (status, body["code"]) == (500, "internal.error")
        assert "secret" not in json.dumps(body)
        assert [line["log_level"] for line in lines if line["event"] == "request_failed"] == [
            "error"
        ]

    async def test_a_key_in_the_query_is_refused_with_a_sentence(self, door: Door) -> None:
        for query in ("token=alice", "api_key=alice", "page=csu_abc"):
            status, body, _ = await door.ask("GET", f"{BOXES}?{query}", None)
            assert (status, body["code"]) == (400, "payload.invalid")
            assert "Authorization" in body["detail"]
            assert fields(body) == [query.partition("=")[0]]

    async def test_two_different_keys_are_refused(self, door: Door) -> None:
        status, body, _ = await door.ask("GET", BOXES, headers={"X-API-Key": "bob"})
        assert (status, body["code"]) == (400, "request.malformed")


class TestUniformNotFound:
    @pytest.mark.parametrize(
        "box_id",
        [
            "019a9c1e-0000-7000-8000-00000000ffff",
            "1",
            "not-an-id",
            "019A9C1E-0000-7000-8000-000000000001",
            "%00",
            "%ED%A0%80",
            "%FF",
            "..%2f..%2fetc",
            "' or 1=1 --",
            "x" * 4000,
        ],
    )
    async def test_foreign_unknown_and_impossible_ids_answer_the_same(
        self, door: Door, box_id: str
    ) -> None:
        for method in ("GET", "DELETE"):
            if method == "DELETE" and box_id == "019a9c1e-0000-7000-8000-00000000ffff":
                continue
            status, body, _ = await door.ask(method, f"{BOXES}/{box_id}")
            body.pop("trace_id")
            assert status == 404
            assert body == {
                "type": "/docs/errors#example.not_found",
                "title": "There is no such box.",
                "status": 404,
                "detail": "There is no such box.",
                "code": "example.not_found",
                "retryable": False,
                "retry_after_ms": None,
                "errors": [],
            }

    async def test_a_bad_body_on_a_good_path_is_422(self, door: Door) -> None:
        status, body, _ = await door.ask("PATCH", f"{BOXES}/{SOME_ID}", json={"name": 5})
        assert (status, fields(body)) == (422, ["name"])


class TestBadInput:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b"", "name"),
            (b"{}", "name"),
            (b'{"name": 5}', "name"),
            (b'{"name": true}', "name"),
            (b'{"name": ""}', "name"),
            (b'{"name": "a", "owner": "a b"}', "owner"),
            (b'{"name": "a", "client_id": "x"}', "client_id"),
            (b'{"name": "a", "name": "b"}', "name"),
            (b'{"name": "a\\u0000"}', "name"),
            (b'{"name": "\\ud800"}', "name"),
            (b'{"name": NaN}', "name"),
            (b'{"name": 1e400}', "name"),
            (b'{"name": 99999999999999999999999}', "name"),
            (b'{"name": "a", "things": [1]}', "things.0"),
            (b"[]", "$"),
            (b'"text"', "$"),
            (b"null", "$"),
            (b"{", "$"),
            (b'{"name": "\xff"}', "$"),
            ('{"name": "a"}'.encode("utf-16"), "$"),
            (b"[" * 60_000, "$"),
            (b'{"a":' * 40 + b"1" + b"}" * 40, ".".join("a" * 32)),
            (b'{"name": ' + b"9" * 5000 + b"}", "$"),
        ],
    )
    async def test_it_is_refused_with_the_field_named(
        self, door: Door, body: bytes, field: str
    ) -> None:
        headers = {"Content-Type": "application/json"}
        status, problem, _ = await door.ask("POST", BOXES, data=body, headers=headers)
        assert (status, problem["code"]) == (422, "payload.invalid")
        assert fields(problem)[0] == field
        assert door.boxes.made == []

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("colur=red", "colur"),
            ("page=0", "page"),
            ("page=-1", "page"),
            ("size=101", "size"),
            ("size=1e9", "size"),
            ("page=99999999999999999999", "page"),
            ("page=1&page=2", "page"),
            ("is_open=perhaps", "is_open"),
            ("colour=%00", "colour"),
            ("colour=", "colour"),
            ("client_id=x", "client_id"),
        ],
    )
    async def test_a_bad_query_is_refused_with_the_field_named(
        self, door: Door, query: str, field: str
    ) -> None:
        status, problem, _ = await door.ask("GET", f"{BOXES}?{query}")
        assert (status, problem["code"], fields(problem)) == (422, "payload.invalid", [field])

    async def test_a_write_takes_nothing_from_the_query(self, door: Door) -> None:
        status, problem, _ = await door.ask("POST", f"{BOXES}?name=a", json={"name": "a"})
        assert (status, fields(problem)) == (422, ["name"])
        assert door.boxes.made == []

    async def test_what_stands_in_the_path_may_not_stand_elsewhere(self, door: Door) -> None:
        path = f"{BOXES}/{SOME_ID}"
        status, problem, _ = await door.ask("PATCH", path, json={"box_id": SOME_ID})
        assert (status, fields(problem)) == (422, ["box_id"])
        status, problem, _ = await door.ask("GET", f"{path}?box_id={SOME_ID}")
        assert (status, fields(problem)) == (422, ["box_id"])

    async def test_a_read_takes_no_body(self, door: Door) -> None:
        status, problem, _ = await door.ask("GET", BOXES, json={"a": 1})
        assert status == 422
        assert problem["errors"][0]["field"] == "$"

    async def test_members_of_a_delete_stand_in_the_query_or_in_a_body(self, door: Door) -> None:
        path = f"{BOXES}/{SOME_ID}"
        assert (await door.ask("DELETE", path, json={}))[0] == 200
        for place in ("json", "params"):
            more: dict[str, Any] = {place: {"shape": "round"}}
            status, problem, _ = await door.ask("DELETE", path, **more)
            assert (status, problem["errors"][0]["field"]) == (422, "shape")
        both = {"colour": "red"}
        status, problem, _ = await door.ask("DELETE", path, json={"shape": "round"}, params=both)
        assert (status, problem["errors"][0]["field"]) == (422, "colour")

    async def test_only_plain_json_is_taken(self, door: Door) -> None:
        body = b'{"name": "a"}'
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
        ):
            status, problem, _ = await door.ask(
                "POST", BOXES, data=body, headers={"Content-Type": kind}
            )
            assert (status, problem["code"]) == (415, "payload.invalid"), kind
        headers = {"Content-Type": "application/json; charset=UTF-8"}
        assert (await door.ask("POST", BOXES, data=body, headers=headers))[0] == 201

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
    async def test_a_compressed_body_is_refused_before_it_is_unpacked(
        self, door: Door, coding: str
    ) -> None:
        request = (
            f"POST {BOXES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\n"
            f"Content-Type: application/json\r\nContent-Encoding: {coding}\r\n"
            "Content-Length: 4\r\nConnection: close\r\n\r\n\x1f\x1f\x1f\x1f"
        )
        answer = await door.send_raw(request.encode("latin-1"))
        assert answer.startswith(b"HTTP/1.1 415 ")
        assert b'"code":"payload.invalid"' in answer


class TestLimits:
    async def test_the_largest_body_is_taken_and_one_byte_more_is_not(self, door: Door) -> None:
        fitting = b'{"name":"' + b"x" * (MAX_BODY - len(b'{"name":""}')) + b'"}'
        headers = {"Content-Type": "application/json"}
        status, problem, _ = await door.ask("POST", BOXES, data=fitting, headers=headers)
        assert (status, fields(problem)) == (422, ["name"])
        status, problem, _ = await door.ask("POST", BOXES, data=fitting + b" ", headers=headers)
        assert status == 413
        assert problem["code"] == "payload.too_large"
        assert problem["details"] == {"max_bytes": MAX_BODY}

    async def test_a_stream_of_unknown_length_is_cut_off_at_the_limit(self, door: Door) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(20):
                sent += 16 * 1024
                yield b" " * 16 * 1024

        status, problem, _ = await door.ask(
            "POST", BOXES, data=endless(), headers={"Content-Type": "application/json"}
        )
        assert (status, problem["code"]) == (413, "payload.too_large")

    async def test_a_caller_who_hangs_up_in_the_middle_is_no_fault_of_ours(
        self, door: Door
    ) -> None:
        with capture_logs() as lines:
            _, writer = await asyncio.open_connection(door.host, door.port)
            writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.close()
            async with asyncio.timeout(5):
                while not lines:  # noqa: ASYNC110 - the log has no event to wait for
                    await asyncio.sleep(0.02)
        assert [(line["event"], line["status"]) for line in lines] == [("http_request", 400)]
        assert (await door.ask("GET", BOXES))[0] == 200

    @pytest.mark.timeout(30)
    async def test_a_slow_body_is_cut_off_after_ten_seconds(self, door: Door) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        answers = await asyncio.gather(
            door.send_raw(HEAD + b'Content-Length: 100\r\n\r\n{"name":', wait_s=20),
            # What follows is no chunk, so this body will never end either.
            door.send_raw(
                HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"zz\r\n", wait_s=20
            ),
        )
        for answer in answers:
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code":"request.timeout"' in answer
        assert 9.5 < loop.time() - started < 15


class TestMalformed:
    @pytest.mark.parametrize(
        "data",
        [
            b"GARBAGE\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ],
    )
    async def test_what_is_not_http_gets_a_problem_that_quotes_nothing(
        self, door: Door, data: bytes
    ) -> None:
        head, _, body = (await door.send_raw(data)).partition(b"\r\n\r\n")
        assert b" 400 " in head.split(b"\r\n")[0]
        assert b"application/problem+json" in head
        said = json.loads(body)
        assert said["code"] == "request.malformed"
        assert b"aaaa" not in body
        assert b"GARBAGE" not in body

    async def test_the_next_connection_is_served(self, door: Door) -> None:
        await door.send_raw(b"GARBAGE\r\n\r\n")
        assert (await door.ask("GET", BOXES))[0] == 200

    async def test_an_unknown_expectation_is_ignored_and_continue_is_given(
        self, door: Door
    ) -> None:
        status, *_ = await door.ask("POST", BOXES, json={"name": "a"}, expect100=True)
        assert status == 201
        status, *_ = await door.ask("GET", BOXES, headers={"Expect": "miracles"})
        assert status == 200


class TestOrigin:
    async def test_a_listed_page_is_served_and_another_is_not(self, door: Door) -> None:
        for origin, expected in (
            (None, 200),
            ("https://app.example", 200),
            ("https://evil.example", 403),
            ("null", 403),
        ):
            headers = {"Origin": origin} if origin else {}
            status, body, response = await door.ask("GET", BOXES, "browser", headers=headers)
            assert status == expected, origin
            if expected == 403:
                assert body["code"] == "auth.origin"
                # The page must be able to read why.
                assert response.headers["Access-Control-Allow-Origin"] == "*"


class TestLog:
    async def test_one_line_tells_the_pattern_and_no_secret(self, door: Door) -> None:
        with capture_logs() as lines:
            await door.ask(
                "GET", f"{BOXES}/{SOME_ID}?token=csm_verysecret", headers={"X-Extra": "e"}
            )
            await door.ask("GET", f"{BOXES}/{SOME_ID}")
            await door.ask("GET", "/nothing/csm_verysecret")
        requests = [line for line in lines if line["event"] == "http_request"]
        assert [(line["route"], line["status"], line["client"]) for line in requests] == [
            (f"{BOXES}/{{box_id}}", 400, None),
            (f"{BOXES}/{{box_id}}", 200, "acme"),
            (None, 404, None),
        ]
        assert all(line["method"] == "GET" and line["ms"] >= 0 for line in requests)
        assert "verysecret" not in repr(lines)
        assert SOME_ID not in repr(requests)

    async def test_paths_that_answer_for_themselves_are_left_alone(self) -> None:
        async with running(bypass=("/nothing",)) as door:
            with capture_logs() as lines:
                async with door.http.get("/nothing/here") as response:
                    assert response.status == 404
                    assert response.content_type == "text/plain"
            assert lines == []


class TestDomainRefusals:
    @pytest.mark.parametrize(
        ("error", "status"),
        [(BoxFullError(), 409), (PayloadInvalidError.of("name", "is taken"), 422)],
    )
    async def test_they_are_told_as_they_are(
        self, door: Door, error: Exception, status: int
    ) -> None:
        door.boxes.fails = error
        got, body, _ = await door.ask("POST", BOXES, json={"name": "a"})
        assert got == status
        assert body["detail"] == str(error)
