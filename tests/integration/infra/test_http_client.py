"""E1 to E4 and E6 where they happen: at the resolver, at the socket, and in what comes back."""

import asyncio
import gzip
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from chatserver.infra.addresses import AddressRefusedError, Reach
from chatserver.infra.http_client import PER_HOST, GuardedClient, OutboundError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Names(AbstractResolver):
    """A DNS that gives what a test wants; lists change with every question, None is none."""

    def __init__(self, *answers: list[str] | None) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if answer is None:
            raise OSError("no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in answer
        ]

    async def close(self) -> None:
        return


class Site:
    """A server on this machine, and how often it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.headers: dict[str, str] = {}
        self.running = 0
        self.most_running = 0
        self.answer: Handler = _plain

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.headers = dict(request.headers)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.answer(request)
        finally:
            self.running -= 1


async def _plain(_: web.Request) -> web.StreamResponse:
    return web.Response(text="hello")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    port = runner.addresses[0][1]
    made.url = f"http://127.0.0.1:{port}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def near() -> AsyncIterator[GuardedClient]:
    """A client that may reach this machine."""
    async with GuardedClient(Reach(private=True), total_s=2, connect_s=1) as made:
        yield made


class TestWhereTo:
    @pytest.mark.parametrize(
        "answer",
        [
            ["127.0.0.1"],
            ["10.0.0.1"],
            ["169.254.169.254"],
            ["::1"],
            ["::ffff:127.0.0.1"],
            ["64:ff9b::7f00:1"],
            ["8.8.8.8", "127.0.0.1"],
            ["2606:4700::1111", "fd00::1"],
            [],
        ],
    )
    async def test_a_name_is_refused_for_any_one_of_its_addresses(self, answer: list[str]) -> None:
        async with GuardedClient(resolver=Names(answer)) as client:
            with pytest.raises(AddressRefusedError):
                await client.check("https://rebind.example.com/keys")
            with pytest.raises(AddressRefusedError):
                await client.fetch("GET", "https://rebind.example.com/keys")

    async def test_a_name_that_cannot_be_found_is_kept_and_judged_when_it_is_asked(self) -> None:
        async with GuardedClient(resolver=Names(None, ["127.0.0.1"])) as client:
            await client.check("https://later.example.com/keys")
            with pytest.raises(AddressRefusedError):
                await client.fetch("GET", "https://later.example.com/keys")

    async def test_a_name_that_changes_after_it_was_checked_is_refused(self, site: Site) -> None:
        names = Names(["8.8.8.8"], ["127.0.0.1"])
        async with GuardedClient(resolver=names) as client:
            await client.check("https://rebind.example.com/keys")
            with pytest.raises(AddressRefusedError):
                await client.fetch("GET", "https://rebind.example.com/keys")
        assert names.asked == 2
        assert site.asked == 0

    async def test_the_socket_refuses_what_a_resolver_let_pass(self, site: Site) -> None:
        port = int(site.url.rpartition(":")[2])
        async with GuardedClient() as client:
            for place in (("127.0.0.1", port), ("10.0.0.1", 443)):
                with pytest.raises(AddressRefusedError):
                    client._socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", place))
            with pytest.raises(AddressRefusedError):
                client._socket((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0)))

    async def test_the_socket_is_asked_for_literals_which_no_resolver_sees(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = Names(["8.8.8.8"])
        async with GuardedClient(Reach(private=True), resolver=names) as client:
            await client.fetch("GET", site.url)
            client._reach = Reach()
            # The text was judged before; only the socket's own judgement is left.
            monkeypatch.setattr(
                "chatserver.infra.http_client.target_of",
                lambda url, _: _Text(url, "127.0.0.1", 1),
            )
            with pytest.raises(AddressRefusedError):
                await client.fetch("GET", site.url)
        assert names.asked == 0
        assert site.asked == 1

    async def test_no_proxy_of_the_environment_is_used(
        self, site: Site, near: GuardedClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert os.environ["http_proxy"]
        assert (await near.fetch("GET", site.url)).body == b"hello"


class _Text:
    def __init__(self, url: str, host: str, port: int) -> None:
        self.url, self.host, self.port = url, host, port


class TestWhatComesBack:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_a_failure(
        self, site: Site, near: GuardedClient, status: int
    ) -> None:
        async def elsewhere(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": site.url + "/secret"})

        site.answer = elsewhere
        with pytest.raises(OutboundError):
            await near.fetch("GET", site.url)
        assert site.asked == 1

    async def test_no_more_than_the_limit_is_read(self, site: Site, near: GuardedClient) -> None:
        sent = 0

        async def endless(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            answer = web.StreamResponse()
            await answer.prepare(request)
            for _ in range(10_000):
                await answer.write(b"x" * 65_536)
                sent += 65_536
            return answer

        site.answer = endless
        with pytest.raises(OutboundError, match="larger"):
            await near.fetch("GET", site.url)
        assert sent < 20_000_000

    async def test_an_announced_size_is_believed(self, site: Site, near: GuardedClient) -> None:
        async def large(_: web.Request) -> web.StreamResponse:
            return web.Response(body=b"x" * 70_000)

        site.answer = large
        with pytest.raises(OutboundError, match="larger"):
            await near.fetch("GET", site.url)
        assert len((await near.fetch("GET", site.url, max_body=70_000)).body) == 70_000

    async def test_nothing_is_unpacked(self, site: Site, near: GuardedClient) -> None:
        bomb = gzip.compress(b"0" * 10_000_000)
        assert len(bomb) < 20_000

        async def packed(_: web.Request) -> web.StreamResponse:
            return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

        site.answer = packed
        assert (await near.fetch("GET", site.url)).body == bomb
        assert site.headers["Accept-Encoding"] == "identity"

    async def test_dripping_ends_with_the_whole_time(self, site: Site, near: GuardedClient) -> None:
        async def drip(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse()
            await answer.prepare(request)
            for _ in range(100):
                await answer.write(b".")
                await asyncio.sleep(0.1)
            return answer

        site.answer = drip
        began = asyncio.get_running_loop().time()
        with pytest.raises(OutboundError, match="in time"):
            await near.fetch("GET", site.url)
        assert asyncio.get_running_loop().time() - began < 4

    async def test_endless_headers_are_refused(self, site: Site, near: GuardedClient) -> None:
        async def long(_: web.Request) -> web.StreamResponse:
            return web.Response(headers={"X-Long": "x" * 20_000})

        site.answer = long
        with pytest.raises(OutboundError):
            await near.fetch("GET", site.url)

    async def test_nobody_there_is_told_without_the_address(self, near: GuardedClient) -> None:
        with pytest.raises(OutboundError) as failed:
            await near.fetch("GET", "http://127.0.0.1:9/secret-path")
        assert "secret-path" not in str(failed.value)


async def test_one_host_gets_few_requests_at_once(site: Site, near: GuardedClient) -> None:
    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return web.Response()

    site.answer = slow
    asked: list[Any] = [near.fetch("GET", site.url) for _ in range(20)]
    await asyncio.gather(*asked)
    assert site.most_running == PER_HOST
