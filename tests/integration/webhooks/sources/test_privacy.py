"""Who is erased is erased from what vendors said, too; secrets and ids stay what they are."""

from typing import Any

import orjson
import pytest

from chatserver.cli.secrets import SEALED
from chatserver.infra.sealed import Sealed
from chatserver.infra.secrets import SecretBox
from chatserver.kernel.principal import Principal
from chatserver.privacy.schemas import PersonPath
from tests.integration.webhooks.sources.conftest import Shop
from tests.support.everything import rows_with

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "c4n4ryOfAnn"
RULE = {
    "name": "order",
    "actions": [
        {"type": "create_room", "external_id": "o-{{ $.id }}", "member_ids": ["{{ $.who }}"]},
        {
            "type": "post_message",
            "room_external_id": "o-{{ $.id }}",
            "sender_id": "{{ $.who }}",
            "content": "{{ $.text }}",
        },
    ],
}


@pytest.mark.parametrize("who", ["ann", 4711])
async def test_an_erasure_reaches_what_came(shop: Shop, who: str | int) -> None:
    source = await shop.source(rules=[RULE])
    hers = await shop.handle({"id": 1, "who": who, "text": CANARY}, name="hers", X_Who=CANARY)
    theirs = await shop.handle({"id": 2, "who": "bob", "text": "his"}, name="his")
    assert (hers.status, theirs.status) == ("done", "done")
    async with shop.house.container.open_privacy() as privacy:
        asked = await privacy.erase(shop.master, PersonPath(external_id=str(who)))
    await shop.house.container.privacy.eraser.erase(asked.id)

    assert await rows_with(shop.house.address.admin_url, CANARY) == {}
    assert (await shop.event(hers.id)).body == ""
    assert (await shop.event(theirs.id)).payload == {"id": 2, "who": "bob", "text": "his"}
    # Its id still counts: what is sent again brings nothing back.
    again = await shop.send({"id": 1, "who": who, "text": CANARY}, name="hers")
    assert again[1]["duplicate"] is True
    assert len(await shop.events(source.id)) == 2
    assert await rows_with(shop.house.address.admin_url, CANARY) == {}


async def test_a_form_of_hers_goes_too_and_nothing_is_done_for_it_later(shop: Shop) -> None:
    await shop.source(rules=[RULE])
    event_id = await shop.took(
        b"id=1&who=ann%40x&text=" + CANARY.encode(),
        Content_Type="application/x-www-form-urlencoded",
    )
    await shop.house.person(shop.master, "ann@x")
    async with shop.house.container.open_privacy() as privacy:
        asked = await privacy.erase(shop.master, PersonPath(external_id="ann@x"))
    await shop.house.container.privacy.eraser.erase(asked.id)
    assert await shop.run(event_id)
    assert (await shop.event(event_id)).status == "dead"
    assert await rows_with(shop.house.address.admin_url, CANARY) == {}


async def test_a_form_of_several_parts_goes_too(shop: Shop) -> None:
    await shop.source()
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % field
        for field in ((b"who", b"ann"), (b"text", CANARY.encode()))
    )
    kind = "multipart/form-data; boundary=x"
    event_id = await shop.took(body + b"--x--\r\n", Content_Type=kind)
    await shop.house.person(shop.master, "ann")
    async with shop.house.container.open_privacy() as privacy:
        asked = await privacy.erase(shop.master, PersonPath(external_id="ann"))
    await shop.house.container.privacy.eraser.erase(asked.id)
    assert (await shop.event(event_id)).body == ""


async def test_an_export_tells_what_came_of_a_person(shop: Shop) -> None:
    await shop.source(rules=[RULE])
    hers = await shop.handle({"id": 1, "who": "ann", "text": CANARY})
    await shop.handle({"id": 2, "who": "bob", "text": "his"})
    ann = await shop.house.person(shop.master, "ann")
    exporter = shop.house.container.privacy.exporter

    async def events(who: Principal) -> list[dict[str, Any]]:
        lines = await exporter.export(who, PersonPath(external_id="ann"))
        rows = [orjson.loads(line) async for line in lines]
        return [row for row in rows if row["type"] == "webhook_event"]

    [told] = await events(shop.master)
    assert (told["id"], told["source"]) == (str(hers.id), "shop")
    assert orjson.loads(told["body"]) == {"id": 1, "who": "ann", "text": CANARY}
    # What an event says may be of others, too: the person hears that there is one.
    [known] = await events(ann)
    assert known == {name: value for name, value in told.items() if name != "body"}


async def test_secrets_are_sealed_anew_with_another_key(shop: Shop) -> None:
    await shop.source()
    settings = shop.house.settings
    keys = ["a new key of the ring", *(key.get_secret_value() for key in settings.secret_keys)]
    columns = [column for column in SEALED if column.table == "inbound_secret"]
    box = SecretBox.from_text(keys)
    sealed = Sealed(shop.house.container.database, box, columns)
    done, unreadable = await sealed.rotate(lambda _: None)
    assert done >= 1
    assert unreadable == []
    newest = SecretBox.from_text(keys[:1])
    assert await Sealed(shop.house.container.database, newest, columns).check(lambda _: None) == []
    # Back again, for the other tests of this process.
    old = SecretBox.from_text([*keys[1:], keys[0]])
    await Sealed(shop.house.container.database, old, columns).rotate(lambda _: None)
    assert (await shop.send({"n": 1}))[0] == 200
