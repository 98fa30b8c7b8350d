"""Providers against a real SMTP server and one that speaks Mailgun's protocol."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.providers.errors import ProviderLimitError, ProviderNotFoundError
from chatserver.providers.schemas import (
    CreateProvider,
    ListProviders,
    ProviderOut,
    ProviderRef,
    UpdateProvider,
)
from tests.support.mail_server import mail_server
from tests.support.mailgun_server import mailgun_server
from tests.support.servers import Database
from tests.support.talk import Talk

SECRET = "hunter2-canary"


async def create(talk: Talk, who: Principal, **members: Any) -> ProviderOut:
    command = {"channel": "email", "kind": "smtp", "name": "ours"} | members
    return await talk.container.providers.checks.create(who, CreateProvider.model_validate(command))


async def update(talk: Talk, who: Principal, provider_id: UUID, **members: Any) -> ProviderOut:
    async with talk.container.providers.open_providers() as providers:
        return await providers.update(who, UpdateProvider(id=provider_id, **members))


def smtp(port: int, **members: Any) -> dict[str, Any]:
    given = {"host": "127.0.0.1", "port": port, "tls": "none", "from": "Shop@EXAMPLE.org"}
    return given | members


@pytest.fixture
async def near(database: Database) -> Any:
    """A process that may reach this machine."""
    talk = Talk(database, allow_private_addresses=True)
    await talk.start()
    yield talk
    await talk.stop()


async def test_one_that_works_says_so_and_hides_its_secrets(near: Talk, master: Principal) -> None:
    async with mail_server() as server:
        server.behaviour.password = SECRET
        made = await create(near, master, config=smtp(server.port, username="u", password=SECRET))
        assert made.verified is not None
        assert (made.verified.ok, made.verified.phase) == (True, "sender")
        assert made.config == {
            **smtp(server.port, username="u", password="********", from_name=None),
            "from": "Shop@example.org",
        }
        assert made.health.state == "active"
        kept = await near.rows("select * from provider")
        assert SECRET not in f"{kept}{made}"
        async with near.container.providers.open_providers() as providers:
            _, config = await providers.opened(master.client_id, made.id)
        assert config["password"] == SECRET


async def test_one_that_fails_is_kept_and_says_why_until_it_is_mended(
    near: Talk, master: Principal
) -> None:
    async with mail_server() as server:
        made = await create(near, master, config=smtp(server.port, username="u", password="wrong"))
        assert made.verified is not None
        assert (made.verified.ok, made.verified.phase) == (False, "auth")
        assert "wrong" not in made.verified.text
        mended = await update(near, master, made.id, config={"password": "right"})
        assert mended.verified is None
        assert mended.config["port"] == server.port
        again = await near.container.providers.checks.verify(master, ProviderRef(id=made.id))
        assert again.verified is not None
        assert again.verified.ok
        # Stars are what was shown, not a new password.
        await update(near, master, made.id, config=again.config)
        again = await near.container.providers.checks.verify(master, ProviderRef(id=made.id))
        assert again.verified is not None
        assert again.verified.ok


async def test_mailgun_is_asked_with_its_key(near: Talk, master: Principal) -> None:
    async with mailgun_server() as server:
        config = {
            "domain": "mg.example.org",
            "api_key": "key-right",
            "base_url": server.url,
            "from": "shop@mg.example.org",
        }
        made = await create(near, master, kind="mailgun", config=config)
        assert made.verified is not None
        assert made.verified.ok
        assert made.config["api_key"] == "********"


async def test_a_private_server_is_refused_where_it_must_be(talk: Talk, master: Principal) -> None:
    async with mail_server() as server:
        made = await create(talk, master, config=smtp(server.port))
        assert made.verified is not None
        assert (made.verified.ok, made.verified.phase) == (False, "resolve")
        assert server.connections == 0


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"config": {"host": "mail.example.org"}}, "config.from"),
        ({"config": smtp(0)}, "config.port"),
        ({"config": smtp(25, tls="maybe")}, "config.tls"),
        ({"config": smtp(25, **{"from": "no address"})}, "config.from"),
        ({"config": smtp(25, extra=1)}, "config.extra"),
        ({"config": smtp(25, host="a b")}, "config.host"),
        ({"config": smtp(25, password=SECRET * 100)}, "config.password"),
        ({"kind": "pigeon", "config": {}}, "kind"),
        ({"channel": "sms", "kind": "twilio", "config": {}}, "kind"),
    ],
)
async def test_what_is_wrong_is_named_and_never_quoted(
    talk: Talk, master: Principal, members: dict[str, Any], field: str
) -> None:
    with pytest.raises(PayloadInvalidError) as refused:
        await create(talk, master, **members)
    assert field in [issue["field"] for issue in refused.value.issues]
    assert SECRET not in str(refused.value.issues)
    assert await talk.rows("select 1 from provider") == []


async def test_they_are_listed_in_the_order_in_which_they_are_asked(
    talk: Talk, master: Principal
) -> None:
    hook = {"channel": "webhook", "kind": "standard", "config": {}}
    for name, position in (("last", 9), ("first", 0), ("second", 5)):
        await create(talk, master, **hook, name=name, position=position)
    async with talk.container.providers.open_providers() as providers:
        page = await providers.list(master, ListProviders(channel="webhook"))
        none = await providers.list(master, ListProviders(channel="email"))
    assert [item.name for item in page.items] == ["first", "second", "last"]
    assert (page.total, none.total) == (3, 0)


async def test_there_is_an_end_of_them(
    talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatserver.providers.service.MOST", 1)
    hook = {"channel": "webhook", "kind": "standard", "config": {}}
    await create(talk, master, **hook)
    with pytest.raises(ProviderLimitError):
        await create(talk, master, **hook)


async def test_another_clients_is_an_unknown_one(talk: Talk, master: Principal) -> None:
    made = await create(talk, master, channel="webhook", kind="standard", config={})
    other = await talk.client("other")
    for who, provider_id in ((other, made.id), (master, uuid4())):
        async with talk.container.providers.open_providers() as providers:
            for refused in (
                providers.get(who, ProviderRef(id=provider_id)),
                providers.delete(who, ProviderRef(id=provider_id)),
                providers.update(who, UpdateProvider(id=provider_id, name="x")),
            ):
                with pytest.raises(ProviderNotFoundError):
                    await refused
    async with talk.container.providers.open_providers() as providers:
        await providers.delete(master, ProviderRef(id=made.id))
    assert await talk.rows("select 1 from provider") == []
    [target] = await talk.rows("select state from delivery_target where id = $1", made.id)
    assert target["state"] == "deleted"
