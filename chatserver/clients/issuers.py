"""Who may sign tokens for a client's users, and which single tokens were ended."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from chatserver.clients.models import JwtIssuer
from chatserver.clients.policies import token_handle, token_name
from chatserver.clients.repository import IssuerRepository, RevokedTokenRepository
from chatserver.clients.schemas import (
    JwtIssuerIn,
    JwtIssuerOut,
    RevokedTokenOut,
    RevokeToken,
    TokenRevoked,
)
from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page, PageRequest
from chatserver.kernel.principal import Principal
from chatserver.realtime.ports import Closing

# No token lives longer than a day, and for a while after its end it may still be exchanged for
# another one: `api_keys` holds them to both, with room for clocks that differ.
KEPT: Final = timedelta(hours=25)


class Issuers:
    """`check_url` raises `AddressRefusedError` for a URL that the server does not go to."""

    def __init__(
        self, *, issuers: IssuerRepository, check_url: Callable[[str], Awaitable[None]]
    ) -> None:
        self._issuers = issuers
        self._check_url = check_url

    async def check(self, issuers: Sequence[JwtIssuerIn]) -> None:
        """Check addresses; no statement runs.

        Raises:
            PayloadInvalidError: the server does not go to one of them.
        """
        for place, issuer in enumerate(issuers):
            if issuer.jwks_url is not None:
                try:
                    await self._check_url(issuer.jwks_url)
                except AddressRefusedError as error:
                    field = f"jwt_issuers.{place}.jwks_url"
                    raise PayloadInvalidError.of(field, str(error)) from error

    async def replace(self, client_id: UUID, issuers: Sequence[JwtIssuerIn]) -> None:
        rows = [JwtIssuer(id=uuid7(), client_id=client_id, **it.model_dump()) for it in issuers]
        await self._issuers.replace(client_id, rows)

    async def shown(self, client_id: UUID) -> list[JwtIssuerOut]:
        return [
            JwtIssuerOut.model_validate(row, from_attributes=True)
            for row in await self._issuers.list(client_id)
        ]


class TokenService:
    """Single tokens that end before their time. `kick` closes their sockets, on every node."""

    def __init__(
        self,
        *,
        tokens: RevokedTokenRepository,
        issuers: IssuerRepository,
        recorder: Recorder,
        kick: Callable[[Closing], None],
    ) -> None:
        self._tokens = tokens
        self._issuers = issuers
        self._recorder = recorder
        self._kick = kick

    async def revoke(self, principal: Principal, command: RevokeToken) -> TokenRevoked:
        client_id = principal.client_id
        names = sorted({it.issuer for it in await self._issuers.list(client_id)})
        if command.issuer is not None:
            names = [it for it in names if it == command.issuer]
        if not names:
            raise PayloadInvalidError.of("issuer", "is none of the client's JWT issuers")
        handles = {name: token_handle(name, command.jti) for name in names}
        rows = [
            {"client_id": client_id, "handle": handle, "issuer": name, "jti": command.jti}
            for name, handle in handles.items()
        ]
        kept_until = await self._tokens.add(rows, kept=KEPT)
        self._recorder.audit(
            client_id, principal, "token.revoke", f"jti:{command.jti}", issuers=names
        )
        for handle in handles.values():
            closing = Closing(
                code="auth.revoked",
                reason="The token was revoked.",
                token=token_name(client_id, handle),
            )
            self._recorder.after_commit(partial(self._kick, closing))
        return TokenRevoked(jti=command.jti, issuers=names, kept_until=kept_until)

    async def list(self, principal: Principal, page: PageRequest) -> Page[RevokedTokenOut]:
        found = await self._tokens.list(principal.client_id, page)
        counted = await self._tokens.count(principal.client_id)
        items = [RevokedTokenOut.model_validate(row, from_attributes=True) for row in found]
        return Page[RevokedTokenOut].of(items, page, counted)
