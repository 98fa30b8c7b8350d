"""REST: tenants for the operator, the own settings and master keys for a client."""

from typing import Final

from chatserver.clients.errors import (
    ClientNotFoundError,
    KeyNotFoundError,
    LastKeyError,
    SlugTakenError,
)
from chatserver.clients.issuers import TokenService
from chatserver.clients.schemas import (
    ClientCreate,
    ClientCreated,
    ClientOut,
    ClientPath,
    ClientUpdate,
    KeyCreate,
    KeyCreated,
    KeyPath,
    KeyRotate,
    MasterKeyOut,
    Nothing,
    OwnClientUpdate,
    RevokedTokenOut,
    RevokeToken,
    TokenRevoked,
)
from chatserver.clients.service import ClientService, MasterKeyService
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page, PageRequest
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty
from chatserver.transport.registry import MASTER, OPERATOR, Route, operation


class ClientsHttp:
    def __init__(self, clients: Open[ClientService]) -> None:
        self._clients = clients

    @operation(
        "client.create", ClientCreate, ClientCreated, callers=OPERATOR, errors=(SlugTakenError,)
    )
    async def create(self, principal: Principal, command: ClientCreate) -> ClientCreated:
        """Make a client.

        The answer holds its first master key, which is never shown again.
        """
        async with self._clients() as clients:
            return await clients.create(principal, command)

    @operation("client.list", PageRequest, Page[ClientOut], callers=OPERATOR)
    async def list(self, principal: Principal, command: PageRequest) -> Page[ClientOut]:
        """List the clients, the oldest first."""
        async with self._clients() as clients:
            return await clients.list(principal, command)

    @operation("client.get", ClientPath, ClientOut, callers=OPERATOR, errors=(ClientNotFoundError,))
    async def get(self, principal: Principal, command: ClientPath) -> ClientOut:
        """Show a client."""
        async with self._clients() as clients:
            return await clients.get(principal, command)

    @operation(
        "client.update", ClientUpdate, ClientOut, callers=OPERATOR, errors=(ClientNotFoundError,)
    )
    async def update(self, principal: Principal, command: ClientUpdate) -> ClientOut:
        """Change a client.

        `status: disabled` refuses its keys and closes its sockets; `active` lets them work again.
        A member that is given replaces the old value whole, `null` takes an override away.
        """
        async with self._clients() as clients:
            return await clients.update(principal, command)

    @operation(
        "client.disable", ClientPath, ClientOut, callers=OPERATOR, errors=(ClientNotFoundError,)
    )
    async def disable(self, principal: Principal, command: ClientPath) -> ClientOut:
        """Disable a client.

        Its keys are refused and its sockets closed, everywhere. Nothing that it stored is deleted:
        `PATCH` with `status: active` undoes it.
        """
        async with self._clients() as clients:
            return await clients.disable(principal, command)

    @operation("client.own", Nothing, ClientOut, callers=MASTER)
    async def own(self, principal: Principal, command: Nothing) -> ClientOut:
        """Show the own client with its settings."""
        async with self._clients() as clients:
            return await clients.own(principal, command)

    @operation("client.update_own", OwnClientUpdate, ClientOut, callers=MASTER)
    async def update_own(self, principal: Principal, command: OwnClientUpdate) -> ClientOut:
        """Change the own client's settings.

        A member that is given replaces the old value whole, `null` takes an override away.
        `cors_origins` are the origins that browsers may come from (null: any; callers without an
        `Origin` are never concerned). In `room_deactivation`, `null` for a type means never.
        `retention` gives the days after which messages of rooms of a type are deleted; a type that
        isn't named keeps them for ever. `key_reuse` says what follows when a used-up key comes
        back: `revoke_family` (the default) or `reject_and_alert`.
        `chat` has the rules of the conversation.
        """
        async with self._clients() as clients:
            return await clients.update_own(principal, command)


class ClientKeysHttp:
    def __init__(self, keys: Open[MasterKeyService]) -> None:
        self._keys = keys

    @operation("client_key.list", PageRequest, Page[MasterKeyOut], callers=MASTER)
    async def list(self, principal: Principal, command: PageRequest) -> Page[MasterKeyOut]:
        """List the client's living master keys, the oldest first."""
        async with self._keys() as keys:
            return await keys.list(principal, command)

    @operation("client_key.create", KeyCreate, KeyCreated, callers=MASTER)
    async def create(self, principal: Principal, command: KeyCreate) -> KeyCreated:
        """Make another master key; the answer shows it once."""
        async with self._keys() as keys:
            return await keys.create(principal, command)

    @operation(
        "client_key.rotate", KeyRotate, KeyCreated, callers=MASTER, errors=(KeyNotFoundError,)
    )
    async def rotate(self, principal: Principal, command: KeyRotate) -> KeyCreated:
        """Replace a master key by a new one of the same name; the answer shows it once.

        The old one works for another `overlap_s` seconds (a day unless given, at most a week);
        with `now: true` it ends at once.
        """
        async with self._keys() as keys:
            return await keys.rotate(principal, command)

    @operation(
        "client_key.delete",
        KeyPath,
        Empty,
        callers=MASTER,
        errors=(KeyNotFoundError, LastKeyError),
    )
    async def delete(self, principal: Principal, command: KeyPath) -> Empty:
        """End a master key at once; the last one can only be rotated."""
        async with self._keys() as keys:
            return await keys.delete(principal, command)


class TokensHttp:
    def __init__(self, tokens: Open[TokenService]) -> None:
        self._tokens = tokens

    @operation("token.revoke", RevokeToken, TokenRevoked, callers=MASTER)
    async def revoke(self, principal: Principal, command: RevokeToken) -> TokenRevoked:
        """End one JWT before its time, by its `jti`, and close its sockets, on every node.

        The token need not have been seen here before. Revoking it again changes nothing.
        """
        async with self._tokens() as tokens:
            return await tokens.revoke(principal, command)

    @operation("token.list_revoked", PageRequest, Page[RevokedTokenOut], callers=MASTER)
    async def list(self, principal: Principal, command: PageRequest) -> Page[RevokedTokenOut]:
        """List the single tokens that were revoked, the newest first, for as long as it matters."""
        async with self._tokens() as tokens:
            return await tokens.list(principal, command)


CLIENT_ROUTES: Final = (
    Route(method="POST", path="/clients", operation="client.create", status=201),
    Route(method="GET", path="/clients", operation="client.list"),
    Route(method="GET", path="/clients/{id}", operation="client.get"),
    Route(method="PATCH", path="/clients/{id}", operation="client.update"),
    Route(method="DELETE", path="/clients/{id}", operation="client.disable"),
    Route(method="GET", path="/client", operation="client.own"),
    Route(method="PATCH", path="/client", operation="client.update_own"),
)
KEY_ROUTES: Final = (
    Route(method="GET", path="/client/keys", operation="client_key.list"),
    Route(method="POST", path="/client/keys", operation="client_key.create", status=201),
    Route(
        method="POST", path="/client/keys/{id}/rotate", operation="client_key.rotate", status=201
    ),
    Route(method="DELETE", path="/client/keys/{id}", operation="client_key.delete", status=204),
)
TOKEN_ROUTES: Final = (
    Route(method="POST", path="/client/revoked-tokens", operation="token.revoke", status=201),
    Route(method="GET", path="/client/revoked-tokens", operation="token.list_revoked"),
)
