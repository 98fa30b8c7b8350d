"""What one can do with providers: set them up, check them, change and remove them."""

from typing import Any, Final, Protocol
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError

from chatserver.deliveries.models import Target
from chatserver.deliveries.targets import TargetService
from chatserver.infra.mail import Outcome
from chatserver.infra.secrets import SecretBox
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.clock import Clock, rfc3339
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.findings import issues_of, sentence
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.providers.errors import ProviderLimitError, ProviderNotFoundError
from chatserver.providers.models import Provider
from chatserver.providers.repository import ProviderRepository
from chatserver.providers.schemas import (
    HIDDEN,
    KINDS,
    SECRETS,
    CreateProvider,
    ListProviders,
    ProviderDeleted,
    ProviderHealth,
    ProviderOut,
    ProviderRef,
    UpdateProvider,
    Verification,
)

MOST: Final = 50
# SMTP accounts allow few connections at a time; the pool has no more anyway.
CONCURRENCY: Final = {"smtp": 2, "mailgun": 4, "standard": 4}


class ProviderService:
    """Providers of one transaction."""

    def __init__(
        self,
        *,
        providers: ProviderRepository,
        targets: TargetService,
        box: SecretBox,
        recorder: Recorder,
    ) -> None:
        self._providers = providers
        self._targets = targets
        self._box = box
        self._recorder = recorder

    async def create(self, principal: Principal, command: CreateProvider) -> ProviderOut:
        """Set a provider up.

        Raises:
            PayloadInvalidError: there is no such kind, or its configuration is wrong.
            ProviderLimitError: the client has enough of them.
        """
        config = _checked(command.channel, command.kind, command.config)
        client_id = principal.client_id
        await self._providers.lock_client(client_id)
        if await self._providers.count(client_id) >= MOST:
            raise ProviderLimitError(max=MOST)
        provider = Provider(
            id=uuid7(),
            client_id=client_id,
            channel=command.channel,
            kind=command.kind,
            name=command.name,
            position=command.position,
            enabled=command.enabled,
            sealed=b"",
        )
        self._seal(provider, config)
        self._targets.add(
            Target(
                id=provider.id,
                client_id=client_id,
                channel=command.channel,
                concurrency=CONCURRENCY[command.kind],
            )
        )
        await self._providers.add(provider)
        self._audit(principal, "create", provider)
        return await self._shown(provider)

    async def get(self, principal: Principal, command: ProviderRef) -> ProviderOut:
        return await self._shown(await self._must(principal.client_id, command.id))

    async def list(self, principal: Principal, command: ListProviders) -> Page[ProviderOut]:
        rows = await self._providers.page(
            principal.client_id,
            channel=command.channel,
            offset=command.offset,
            limit=command.size,
        )
        targets = await self._targets.find(principal.client_id, [row.id for row in rows])
        items = [_out(row, targets[row.id]) for row in rows]
        counted = await self._providers.count(principal.client_id, command.channel)
        return Page[ProviderOut].of(items, command, counted)

    async def update(self, principal: Principal, command: UpdateProvider) -> ProviderOut:
        """Change what is named. Members of `config` that are left out, or stars, stay.

        Raises:
            ProviderNotFoundError, PayloadInvalidError
        """
        provider = await self._must(principal.client_id, command.id)
        if command.config is not None:
            kept = {name: value for name, value in command.config.items() if value != HIDDEN}
            merged = self.config(provider) | kept
            given = {name: value for name, value in merged.items() if value is not None}
            self._seal(provider, _checked(provider.channel, provider.kind, given))
            provider.verified = None
            # It was mended, or so its owner thinks: what waits is tried at once.
            await self._targets.heal(provider.client_id, provider.channel, provider.id)
        for name in ("name", "position", "enabled"):
            if getattr(command, name) is not None:
                setattr(provider, name, getattr(command, name))
        await self._providers.touch(provider)
        self._audit(principal, "update", provider)
        return await self._shown(provider)

    async def delete(self, principal: Principal, command: ProviderRef) -> ProviderDeleted:
        """Remove a provider with its credentials. What waits for it goes another way, or ends."""
        provider = await self._must(principal.client_id, command.id)
        await self._providers.delete(provider)
        await self._targets.end(principal.client_id, provider.id)
        self._audit(principal, "delete", provider)
        return ProviderDeleted(id=provider.id)

    async def opened(self, client_id: UUID, provider_id: UUID) -> tuple[Provider, dict[str, Any]]:
        """Give a provider and its whole configuration, secrets as well: for sending alone."""
        provider = await self._must(client_id, provider_id)
        return provider, self.config(provider)

    async def verified(
        self, principal: Principal, provider_id: UUID, said: Verification
    ) -> ProviderOut:
        """Keep how a check went."""
        provider = await self._must(principal.client_id, provider_id)
        await self._providers.verified(
            provider,
            {"ok": said.ok, "phase": said.phase, "text": said.text, "at": rfc3339(said.at)},
        )
        return await self._shown(provider)

    def config(self, provider: Provider) -> dict[str, Any]:
        """Open a provider's configuration.

        Raises:
            UnreadableSecretError: it was sealed with a key that is gone.
        """
        sealed = self._box.open(
            provider.sealed, bound_to=place_of_config(provider.client_id, provider.id)
        )
        opened: dict[str, Any] = orjson.loads(sealed)
        return opened

    def _seal(self, provider: Provider, config: dict[str, Any]) -> None:
        provider.shown = {
            name: HIDDEN if name in SECRETS and value is not None else value
            for name, value in config.items()
        }
        provider.sealed = self._box.seal(
            orjson.dumps(config), bound_to=place_of_config(provider.client_id, provider.id)
        )

    async def _must(self, client_id: UUID, provider_id: UUID) -> Provider:
        provider = await self._providers.find(client_id, provider_id)
        if provider is None:
            raise ProviderNotFoundError
        return provider

    async def _shown(self, provider: Provider) -> ProviderOut:
        targets = await self._targets.find(provider.client_id, [provider.id])
        return _out(provider, targets[provider.id])

    def _audit(self, principal: Principal, what: str, provider: Provider) -> None:
        self._recorder.audit(
            provider.client_id,
            principal,
            f"provider.{what}",
            f"provider:{provider.id}",
            kind=provider.kind,
        )


class Checks(Protocol):
    """Who can try a provider without sending anything."""

    async def __call__(self, kind: str, config: dict[str, Any]) -> Outcome:
        """Connect and log in."""
        ...


class ProviderChecks:
    """Tries providers: no transaction is open while the other side is asked."""

    def __init__(
        self, *, open_providers: Open[ProviderService], check: Checks, clock: Clock
    ) -> None:
        self._open_providers = open_providers
        self._check = check
        self._clock = clock

    async def create(self, principal: Principal, command: CreateProvider) -> ProviderOut:
        """Set a provider up and try it: one that fails is kept, and says why."""
        async with self._open_providers() as providers:
            made = await providers.create(principal, command)
        return await self.verify(principal, ProviderRef(id=made.id))

    async def verify(self, principal: Principal, command: ProviderRef) -> ProviderOut:
        """Try a provider now.

        Raises:
            ProviderNotFoundError
        """
        async with self._open_providers() as providers:
            provider, config = await providers.opened(principal.client_id, command.id)
            kind, provider_id = provider.kind, provider.id
        outcome = await self._check(kind, config)
        said = Verification(
            ok=outcome.kind == "accepted",
            phase=outcome.phase,
            text=outcome.text,
            at=self._clock(),
        )
        async with self._open_providers() as providers:
            return await providers.verified(principal, provider_id, said)


def place_of_config(client_id: UUID, provider_id: UUID) -> str:
    """Name what a sealed configuration is bound to."""
    return f"provider:{client_id}:{provider_id}"


def _checked(channel: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    adapter: TypeAdapter[Any] | None = KINDS.get((channel, kind))
    if adapter is None:
        known = [known for of, known in KINDS if of == channel]
        issue = f"must be one of {', '.join(known)}" if known else "no adapter for this channel yet"
        raise PayloadInvalidError.of("kind", f"{channel}: {issue}")
    try:
        made = adapter.validate_python(config)
    except ValidationError as error:
        issues = issues_of(error, "config")
        raise PayloadInvalidError(sentence(issues[0]), issues=issues) from None
    checked: dict[str, Any] = made.model_dump(by_alias=True)
    return checked


def _out(provider: Provider, target: Target) -> ProviderOut:
    return ProviderOut(
        id=provider.id,
        channel=provider.channel,
        kind=provider.kind,
        name=provider.name,
        position=provider.position,
        enabled=provider.enabled,
        config=dict(provider.shown),
        verified=None
        if provider.verified is None
        else Verification.model_validate(provider.verified, strict=False),
        health=ProviderHealth(
            state=target.state,
            reason=target.reason,
            since=target.since,
            open_until=target.open_until,
        ),
        created_at=provider.created_at,
        updated_at=provider.updated_at,
    )
