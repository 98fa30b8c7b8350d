"""The demo client with its two users, made through the REST interface like any other."""

import json
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp

from chatserver.dev.errors import DemoError
from chatserver.dev.secrets import write_private

NAME: Final = "demo"
USERS: Final = {"alice": "Alice", "bob": "Bob"}
DEVICE: Final = "dev"
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True)
class DemoClient:
    id: str
    slug: str
    master_key: str

    def __repr__(self) -> str:
        return f"DemoClient(id={self.id!r}, slug={self.slug!r})"


@dataclass(frozen=True)
class DemoUser:
    external_id: str
    key: str

    def __repr__(self) -> str:
        return f"DemoUser(external_id={self.external_id!r})"


@dataclass(frozen=True)
class Demo:
    client: DemoClient
    users: tuple[DemoUser, ...]


async def introduce(url: str, *, operator_key: str, file: Path) -> Demo:
    """Find or make the demo client and give its users fresh keys.

    The master key is kept in `file`, because the server shows it only once; address and keys stand
    beside it, for examples to read. Raises DemoError when the server refuses.
    """
    async with aiohttp.ClientSession(base_url=url, timeout=TIMEOUT) as session:
        api = _Api(session)
        try:
            client = _read(file)
            if client is None or not await api.knows(client):
                client = await api.make_client(operator_key)
                _keep(file, {"client": asdict(client)})
            users = [await api.login(client, name, shown) for name, shown in USERS.items()]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoError(
                f"The demo client could not be made, because {url} did not answer ({error!r})."
            ) from error
    keys = {user.external_id: user.key for user in users}
    _keep(file, {"url": url, "users": keys, "client": asdict(client)})
    return Demo(client=client, users=tuple(users))


class _Api:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def knows(self, client: DemoClient) -> bool:
        """A key without its client: the database was replaced by another one."""
        async with self._session.get("/api/v1/rooms/all", headers=_bearer(client.master_key)) as it:
            return it.status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}

    async def make_client(self, operator_key: str) -> DemoClient:
        made = await self._send("POST", "/api/v1/clients", operator_key, {"name": NAME})
        return DemoClient(id=made["id"], slug=made["slug"], master_key=made["master_key"])

    async def login(self, client: DemoClient, external_id: str, display_name: str) -> DemoUser:
        path = f"/api/v1/users/{external_id}"
        await self._send("PUT", path, client.master_key, {"display_name": display_name})
        issued = await self._send("POST", f"{path}/login", client.master_key, {"device_id": DEVICE})
        return DemoUser(external_id=external_id, key=issued["key"])

    async def _send(self, method: str, path: str, key: str, body: dict[str, str]) -> dict[str, Any]:
        async with self._session.request(method, path, headers=_bearer(key), json=body) as answer:
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise DemoError(
                    f"The demo data could not be made: {method} {path} was answered "
                    f"{answer.status} {(await answer.text())[:300]}"
                )
            made: dict[str, Any] = await answer.json()
            return made


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _read(file: Path) -> DemoClient | None:
    if not file.exists():
        return None
    try:
        return DemoClient(**json.loads(file.read_text())["client"])
    except (ValueError, TypeError, KeyError):
        return None


def _keep(file: Path, content: dict[str, Any]) -> None:
    write_private(file, json.dumps(content, indent=2) + "\n")
