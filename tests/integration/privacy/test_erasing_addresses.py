"""Where something was sent to a person: in the person's copy, and nowhere after the erasure."""

from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.kernel.principal import Principal
from chatserver.privacy.schemas import PersonPath
from chatserver.providers.schemas import CreateProvider
from tests.support.everything import rows_with
from tests.support.nodes import eventually
from tests.support.notifying import near, send, working
from tests.support.servers import Database
from tests.support.talk import Talk
from tests.support.talking import master, talk

__all__ = ["master", "near", "talk"]

CANARY = "c4n4ryOfAnn"


async def test_no_attempt_tells_to_which_address_of_the_person_it_went(
    near: Talk, master: Principal, database: Database
) -> None:
    async def receive(_: web.Request) -> web.Response:
        return web.Response(status=500)

    await near.users(master, "ann", "bob")
    provider = {"channel": "webhook", "kind": "standard", "name": "w", "config": {}}
    await near.container.providers.checks.create(master, CreateProvider.model_validate(provider))
    app = web.Application()
    app.router.add_post("/{whose}", receive)
    async with TestServer(app) as server, working(near):
        sent = await send(
            near,
            master,
            recipients=[
                {"user_id": "ann", "url": str(server.make_url(f"/{CANARY}"))},
                {"user_id": "bob", "url": str(server.make_url("/bob"))},
            ],
            channels={"webhook": {"type": "x", "data": {}}},
            priority="critical",
        )
        rows = await eventually(lambda: tried(near, master), why="both were tried")
    assert any(CANARY in row["url"] for row in rows)
    copy = await exported(near, master, "ann")
    assert [line["notification_id"] for line in copy if line["type"] == "delivery"] == [
        str(sent.id)
    ]

    async with near.container.open_privacy() as privacy:
        asked = await privacy.erase(master, PersonPath(external_id="ann"))
    await near.container.privacy.eraser.erase(asked.id)

    assert await rows_with(database.admin_url, CANARY) == {}
    left = await near.rows(
        "select url from delivery_attempt where client_id = $1 and url is not null",
        master.client_id,
    )
    assert left, "what was sent to others says still where"
    assert all(row["url"].endswith("/bob") for row in left)


async def tried(near: Talk, master: Principal) -> list[dict[str, Any]] | None:
    found = await near.rows(
        "select distinct url from delivery_attempt where client_id = $1", master.client_id
    )
    return found if len(found) > 1 else None


async def exported(near: Talk, master: Principal, name: str) -> list[dict[str, Any]]:
    lines = await near.container.privacy.exporter.export(master, PersonPath(external_id=name))
    return [orjson.loads(line) async for line in lines]
