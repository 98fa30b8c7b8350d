"""What browsers and mail providers find outside of the API's prefix, on every node."""

from uuid import uuid4

import aiohttp

from chatserver.infra.web_push import bytes_of, check_point
from tests.support.nodes import Node


async def test_every_node_has_the_same_key_and_lets_no_stranger_tell_of_mails(
    nodes: list[Node],
) -> None:
    keys, refusals = set(), set()
    async with aiohttp.ClientSession() as http:
        for node in nodes:
            from_a_page = {"Origin": "https://shop.example.org"}
            async with http.get(f"{node.url}/push/vapid-key", headers=from_a_page) as answer:
                assert answer.status == 200
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
                keys.add((await answer.json())["public_key"])
            async with http.post(f"{node.url}/callbacks/{uuid4()}", json={}) as answer:
                refusals.add((answer.status, (await answer.json())["code"]))
    [key] = keys
    check_point(bytes_of(key))
    assert refusals == {(401, "callback.refused")}
