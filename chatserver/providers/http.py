"""REST for providers."""

from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.providers.errors import ProviderLimitError, ProviderNotFoundError
from chatserver.providers.schemas import (
    CreateProvider,
    ListProviders,
    ProviderDeleted,
    ProviderOut,
    ProviderRef,
    UpdateProvider,
)
from chatserver.providers.service import ProviderChecks, ProviderService
from chatserver.transport.registry import MASTER, Route, operation


class ProvidersHttp:
    def __init__(self, providers: Open[ProviderService], checks: ProviderChecks) -> None:
        self._providers = providers
        self._checks = checks

    @operation(
        "provider.create", CreateProvider, ProviderOut, callers=MASTER, errors=(ProviderLimitError,)
    )
    async def create(self, principal: Principal, request: CreateProvider) -> ProviderOut:
        """Set up by whom notifications go out, and try it.

        One that fails is kept: `verified` says how far it came and what the other side said.
        Secrets are stored encrypted and never shown again.
        """
        return await self._checks.create(principal, request)

    @operation("provider.list", ListProviders, Page[ProviderOut], callers=MASTER)
    async def list(self, principal: Principal, request: ListProviders) -> Page[ProviderOut]:
        """List providers, in the order in which they are asked."""
        async with self._providers() as providers:
            return await providers.list(principal, request)

    @operation(
        "provider.get", ProviderRef, ProviderOut, callers=MASTER, errors=(ProviderNotFoundError,)
    )
    async def get(self, principal: Principal, request: ProviderRef) -> ProviderOut:
        """Show a provider and how it is."""
        async with self._providers() as providers:
            return await providers.get(principal, request)

    @operation(
        "provider.update",
        UpdateProvider,
        ProviderOut,
        callers=MASTER,
        errors=(ProviderNotFoundError,),
    )
    async def update(self, principal: Principal, request: UpdateProvider) -> ProviderOut:
        """Change a provider. Members of `config` that are left out stay as they are."""
        async with self._providers() as providers:
            return await providers.update(principal, request)

    @operation(
        "provider.delete",
        ProviderRef,
        ProviderDeleted,
        callers=MASTER,
        errors=(ProviderNotFoundError,),
    )
    async def delete(self, principal: Principal, request: ProviderRef) -> ProviderDeleted:
        """Remove a provider with its credentials."""
        async with self._providers() as providers:
            return await providers.delete(principal, request)

    @operation(
        "provider.verify", ProviderRef, ProviderOut, callers=MASTER, errors=(ProviderNotFoundError,)
    )
    async def verify(self, principal: Principal, request: ProviderRef) -> ProviderOut:
        """Connect and log in, without sending anything."""
        return await self._checks.verify(principal, request)


_ONE = "/providers/{id}"
ROUTES: Final = (
    Route(method="POST", path="/providers", operation="provider.create", status=201),
    Route(method="GET", path="/providers", operation="provider.list"),
    Route(method="GET", path=_ONE, operation="provider.get"),
    Route(method="PATCH", path=_ONE, operation="provider.update"),
    Route(method="DELETE", path=_ONE, operation="provider.delete"),
    Route(method="POST", path=_ONE + "/verify", operation="provider.verify"),
)
