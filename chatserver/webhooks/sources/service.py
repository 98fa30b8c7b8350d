"""What a client's application does with its inbound sources."""

import base64
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from chatserver.infra import standard_webhooks
from chatserver.infra.secrets import SecretBox
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty
from chatserver.webhooks.sources.claims import Scheme, Signing
from chatserver.webhooks.sources.errors import (
    LastSecretError,
    SourceNotFoundError,
    SourceSecretNotFoundError,
    SourceSlugTakenError,
)
from chatserver.webhooks.sources.models import (
    InboundSecret,
    InboundSource,
    place_of_secret,
)
from chatserver.webhooks.sources.parts import Parts
from chatserver.webhooks.sources.repository import SourceRepository
from chatserver.webhooks.sources.rule_schemas import Forward, Rule
from chatserver.webhooks.sources.rules import written
from chatserver.webhooks.sources.schemas import (
    MAILGUN_TOLERANCE_S,
    MOST_SECRETS,
    TOLERANCE_S,
    SecretAdd,
    SecretAdded,
    SecretOut,
    SecretPath,
    SourceCreate,
    SourceCreated,
    SourceList,
    SourceOut,
    SourcePath,
    SourceUpdate,
)
from chatserver.webhooks.sources.signatures import key_of

# Vendors whose secret is ours to choose: one is made where none is given.
_OURS: Final = frozenset({Scheme.STANDARD, Scheme.GITHUB, Scheme.GENERIC_HMAC})
_SHOWN: Final = 4


class RuleCheck:
    """Refuses rules that can't ever be done. `knows` tells whether a client has an endpoint."""

    def __init__(self, parts: Parts, knows: Callable[[UUID, UUID], Awaitable[bool]]) -> None:
        self._parts = parts
        self._knows = knows

    async def __call__(self, client_id: UUID, rules: Sequence[Rule]) -> None:
        """Look at all actions of all rules.

        Raises:
            PayloadInvalidError: one names an action whose part is missing, or an endpoint that the
                client has not.
        """
        for number, rule in enumerate(rules):
            for index, action in enumerate(rule.actions):
                place = f"rules.{number}.actions.{index}"
                if self._parts.lacks(action.type):
                    raise PayloadInvalidError.of(
                        f"{place}.type", f"{action.type} is not available yet"
                    )
                if isinstance(action, Forward) and not await self._knows(
                    client_id, action.endpoint_id
                ):
                    raise PayloadInvalidError.of(
                        f"{place}.endpoint_id", "is not one of your webhook endpoints"
                    )


class SourceService:
    """Sources of one transaction. What came by them is `HistoryService`."""

    def __init__(
        self, *, sources: SourceRepository, recorder: Recorder, box: SecretBox, rules: RuleCheck
    ) -> None:
        self._sources = sources
        self._recorder = recorder
        self._box = box
        self._rules = rules

    async def create(self, principal: Principal, command: SourceCreate) -> SourceCreated:
        """Make a source.

        Raises:
            SourceSlugTakenError: the client has another of this slug.
            PayloadInvalidError: a secret can't be one of the scheme, or a rule can't be done here.
        """
        await self._rules(principal.client_id, command.rules)
        given = list(command.secrets)
        made = None
        if not given:
            if command.scheme not in _OURS:
                raise PayloadInvalidError.of("secrets", f"{command.scheme} gives you one: enter it")
            made = new_secret(command.scheme, command.how)
            given = [made]
        for number, secret in enumerate(given):
            _check_secret(command.scheme, command.how, secret, f"secrets.{number}")
        usual = MAILGUN_TOLERANCE_S if command.scheme is Scheme.MAILGUN else TOLERANCE_S
        source = InboundSource(
            id=uuid7(),
            client_id=principal.client_id,
            slug=command.slug,
            description=command.description,
            scheme=command.scheme,
            signing={} if command.signing is None else command.signing.model_dump(mode="json"),
            dedupe=_dumped(command.dedupe),
            url=command.url,
            tolerance_s=command.tolerance_s or usual,
            rate_per_s=command.rate_per_s,
            rate_burst=command.rate_burst,
            rules=written(command.rules),
            is_active=command.is_active,
        )
        if not await self._sources.add(source):
            raise SourceSlugTakenError
        for secret in given:
            await self._sources.add_secret(self._sealed(source, secret))
        self._recorder.audit(
            principal.client_id, principal, "source.create", f"source:{source.id}", slug=source.slug
        )
        shown = await self._shown(principal, source.id)
        return SourceCreated(**shown.model_dump(), secret=made)

    async def list(self, principal: Principal, command: SourceList) -> Page[SourceOut]:
        found, counted = await self._sources.page(principal.client_id, command)
        kept = await self._sources.secrets([each.id for each in found])
        items = [_out(principal, it, [s for s in kept if s.source_id == it.id]) for it in found]
        return Page[SourceOut].of(items, command, counted)

    async def get(self, principal: Principal, command: SourcePath) -> SourceOut:
        return await self._shown(principal, command.id)

    async def update(self, principal: Principal, command: SourceUpdate) -> SourceOut:
        """Change a source.

        Raises:
            SourceNotFoundError, PayloadInvalidError: as `create`.
        """
        source = await self._sources.lock(principal.client_id, command.id)
        if source is None:
            raise SourceNotFoundError
        given = command.model_fields_set - {"id"}
        values: dict[str, Any] = {
            name: getattr(command, name) for name in given & {"description", "url"}
        }
        for name in given & {"tolerance_s", "rate_per_s", "rate_burst", "is_active"}:
            if getattr(command, name) is None:
                raise PayloadInvalidError.of(name, "can't be null")
            values[name] = getattr(command, name)
        if "dedupe" in given:
            values["dedupe"] = _dumped(command.dedupe)
        if command.rules is not None:
            await self._rules(principal.client_id, command.rules)
            values["rules"] = written(command.rules)
        if command.signing is not None:
            if source.scheme != Scheme.GENERIC_HMAC:
                raise PayloadInvalidError.of("signing", "is for generic_hmac")
            values["signing"] = command.signing.model_dump(mode="json")
        if values:
            await self._sources.change(source, values)
            self._recorder.audit(
                principal.client_id,
                principal,
                "source.update",
                f"source:{source.id}",
                changed=sorted(values),
            )
        return await self._shown(principal, command.id)

    async def delete(self, principal: Principal, command: SourcePath) -> Empty:
        """Delete a source with all that came by it.

        Raises:
            SourceNotFoundError: there is none.
        """
        if not await self._sources.remove(principal.client_id, command.id):
            raise SourceNotFoundError
        self._recorder.audit(
            principal.client_id, principal, "source.delete", f"source:{command.id}"
        )
        return Empty()

    async def add_secret(self, principal: Principal, command: SecretAdd) -> SecretAdded:
        """Let a further secret sign, and perhaps the others end.

        Raises:
            SourceNotFoundError, PayloadInvalidError: as `create`; also for the 11th secret.
        """
        source = await self._sources.lock(principal.client_id, command.id)
        if source is None:
            raise SourceNotFoundError
        scheme, signing = Scheme(source.scheme), Signing.of(source.signing)
        secret = command.secret
        if secret is None:
            if scheme not in _OURS:
                raise PayloadInvalidError.of("secret", f"{scheme} gives you one: enter it")
            secret = new_secret(scheme, signing)
        _check_secret(scheme, signing, secret, "secret")
        if len(await self._sources.secrets([source.id])) >= MOST_SECRETS:
            raise PayloadInvalidError.of("secret", f"a source has at most {MOST_SECRETS}")
        added = self._sealed(source, secret)
        await self._sources.add_secret(added)
        if command.expire_others_in_s is not None:
            await self._sources.end_secrets(
                source.id, but=added.id, in_s=command.expire_others_in_s
            )
        self._recorder.audit(
            principal.client_id, principal, "source.add_secret", f"source:{source.id}"
        )
        living = await self._sources.secrets([source.id])
        shown = [_secret_out(each) for each in living]
        return SecretAdded(
            added=next(each for each in shown if each.id == added.id),
            secrets=shown,
            secret=secret if command.secret is None else None,
        )

    async def end_secret(self, principal: Principal, command: SecretPath) -> Empty:
        """End a secret now.

        Raises:
            SourceNotFoundError, SourceSecretNotFoundError: there is none.
            LastSecretError: nothing could be verified any more.
        """
        source = await self._sources.lock(principal.client_id, command.id)
        if source is None:
            raise SourceNotFoundError
        living = await self._sources.secrets([source.id])
        if command.secret_id not in {each.id for each in living}:
            raise SourceSecretNotFoundError
        if len(living) == 1:
            raise LastSecretError
        await self._sources.end_secret(source.id, command.secret_id)
        self._recorder.audit(
            principal.client_id, principal, "source.end_secret", f"source:{source.id}"
        )
        return Empty()

    async def _shown(self, principal: Principal, source_id: UUID) -> SourceOut:
        source = await self._sources.find(principal.client_id, source_id)
        if source is None:
            raise SourceNotFoundError
        return _out(principal, source, await self._sources.secrets([source.id]))

    def _sealed(self, source: InboundSource, secret: str) -> InboundSecret:
        name = uuid7()
        return InboundSecret(
            id=name,
            client_id=source.client_id,
            source_id=source.id,
            sealed=self._box.seal(
                secret.encode(), bound_to=place_of_secret(source.client_id, name)
            ),
            hint=f"…{secret[-_SHOWN:]}",
        )


def new_secret(scheme: Scheme, signing: Signing) -> str:
    """Make a secret that the vendor is told."""
    if scheme is Scheme.STANDARD:
        return standard_webhooks.new_secret()
    if signing.key_encoding == "base64":
        return base64.b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_hex(32)


def path_of(principal: Principal, source: InboundSource) -> str:
    """Tell where a source's requests go."""
    return f"/webhooks/{principal.client_slug}/{source.slug}"


def _check_secret(scheme: Scheme, signing: Signing, secret: str, field: str) -> None:
    try:
        key_of(scheme, signing, secret)
    except ValueError as error:
        raise PayloadInvalidError.of(field, str(error)) from error


def _dumped(value: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a model or None
    if value is None:
        return None
    members: dict[str, Any] = value.model_dump(mode="json", exclude_none=True)
    return members


def _out(principal: Principal, source: InboundSource, kept: Sequence[InboundSecret]) -> SourceOut:
    return SourceOut(
        id=source.id,
        slug=source.slug,
        path=path_of(principal, source),
        description=source.description,
        scheme=source.scheme,
        signing=source.signing or None,
        tolerance_s=source.tolerance_s,
        dedupe=source.dedupe,
        url=source.url,
        rate_per_s=source.rate_per_s,
        rate_burst=source.rate_burst,
        rules=source.rules,
        is_active=source.is_active,
        secrets=[_secret_out(each) for each in kept],
        verified_at=source.verified_at,
        created_at=source.created_at,
        updated_at=source.updated_at,
    )


def _secret_out(secret: InboundSecret) -> SecretOut:
    return SecretOut(
        id=secret.id, hint=secret.hint, created_at=secret.created_at, expires_at=secret.expires_at
    )
