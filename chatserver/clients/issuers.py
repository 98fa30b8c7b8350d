"""Who may sign tokens for a client's users."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from chatserver.clients.models import JwtIssuer
from chatserver.clients.repository import IssuerRepository
from chatserver.clients.schemas import JwtIssuerIn, JwtIssuerOut
from chatserver.infra.addresses import AddressRefusedError
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7


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
