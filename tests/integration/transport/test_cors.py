"""Pages of any origin may call, without cookies, and may read every answer."""

from collections.abc import AsyncIterator

import pytest

from chatserver.transport.cors import EXPOSED
from tests.support.rest import SOME_ID, Door, running

PAGE = "https://page.example"
BOXES = "/api/v1/boxes"
ALLOW_ORIGIN = "Access-Control-Allow-Origin"


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with running() as started:
        yield started


async def preflight(
    door: Door, path: str, method: str, headers: str = "authorization,content-type,idempotency-key"
) -> tuple[int, dict[str, str]]:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }
    status, _, response = await door.ask("OPTIONS", path, None, headers=asked)
    return status, dict(response.headers)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (BOXES, "GET"),
        (BOXES, "POST"),
        (f"{BOXES}/{SOME_ID}", "PATCH"),
        (f"{BOXES}/{SOME_ID}", "DELETE"),
        (f"{BOXES}/{SOME_ID}/things/saw", "PUT"),
        ("/openapi.json", "GET"),
    ],
)
async def test_a_preflight_needs_no_key_and_allows_what_is_there(
    door: Door, path: str, method: str
) -> None:
    status, headers = await preflight(door, path, method)
    assert status == 200
    assert headers[ALLOW_ORIGIN] == "*"
    assert method in headers["Access-Control-Allow-Methods"].split(", ")
    allowed = headers["Access-Control-Allow-Headers"].lower().split(",")
    assert {"authorization", "content-type", "idempotency-key"} <= set(allowed)
    assert int(headers["Access-Control-Max-Age"]) > 0
    assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize(
    ("method", "path", "who", "expected"),
    [
        ("GET", BOXES, "alice", 200),
        ("GET", BOXES, None, 401),
        ("POST", BOXES, "bob", 403),
        ("GET", "/api/v1/nothing", "alice", 404),
        ("PUT", BOXES, "alice", 405),
        ("POST", BOXES, "alice", 422),
        ("GET", BOXES, "flood", 429),
        ("GET", BOXES, "down", 503),
    ],
)
async def test_a_page_can_read_every_answer(
    door: Door, method: str, path: str, who: str | None, expected: int
) -> None:
    status, _, response = await door.ask(method, path, who, headers={"Origin": PAGE})
    assert status == expected
    assert response.headers[ALLOW_ORIGIN] == "*"
    exposed = {
        name.strip() for name in response.headers["Access-Control-Expose-Headers"].split(",")
    }
    assert exposed == set(EXPOSED)
    assert "Access-Control-Allow-Credentials" not in response.headers


async def test_a_bug_can_be_read_too(door: Door) -> None:
    door.boxes.fails = RuntimeError()
    status, _, response = await door.ask(
        "POST", BOXES, json={"name": "a"}, headers={"Origin": PAGE}
    )
    assert (status, response.headers[ALLOW_ORIGIN]) == (500, "*")


async def test_without_an_origin_nothing_is_said_about_it(door: Door) -> None:
    _, _, response = await door.ask("GET", BOXES)
    assert ALLOW_ORIGIN not in response.headers


@pytest.mark.parametrize("origin", [{}, {"Origin": "https://app.example.com"}])
async def test_options_that_is_no_preflight_is_told_the_methods(
    door: Door, origin: dict[str, str]
) -> None:
    status, body, response = await door.ask("OPTIONS", BOXES, None, headers=origin)
    assert (status, body) == (204, None)
    allowed = set(response.headers["Allow"].split(", "))
    assert {"GET", "HEAD", "POST", "OPTIONS"} <= allowed


async def test_a_server_wide_list_names_the_origin_and_keeps_others_out() -> None:
    async with running(origins=(PAGE,)) as door:
        _, _, response = await door.ask("GET", BOXES, headers={"Origin": PAGE})
        assert response.headers[ALLOW_ORIGIN] == PAGE
        assert response.headers["Vary"] == "Origin"
        _, _, missing = await door.ask("GET", "/nothing", headers={"Origin": PAGE})
        assert missing.headers[ALLOW_ORIGIN] == PAGE
        for path in (BOXES, "/nothing"):
            _, _, response = await door.ask(
                "GET", path, headers={"Origin": "https://other.example"}
            )
            assert ALLOW_ORIGIN not in response.headers
        status, body, _ = await door.ask(
            "OPTIONS",
            BOXES,
            None,
            headers={"Origin": "https://other.example", "Access-Control-Request-Method": "GET"},
        )
        assert (status, body["code"]) == (403, "auth.origin")
