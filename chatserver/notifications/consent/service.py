"""Who may be reached how: what people chose, and addresses that get nothing more."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import orjson

from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.events import SYSTEM, Actor
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty
from chatserver.notifications.consent import policies
from chatserver.notifications.consent.errors import (
    SuppressionNotFoundError,
    UnsubscribeTokenError,
)
from chatserver.notifications.consent.models import CHANNELS, Suppression
from chatserver.notifications.consent.repository import ConsentRepository
from chatserver.notifications.consent.schemas import (
    PreferencesGet,
    PreferencesOut,
    PreferencesPatch,
    PreferencesPut,
    SuppressionCreate,
    SuppressionKept,
    SuppressionList,
    SuppressionOut,
    SuppressionPath,
)

PURPOSE: Final = "unsubscribe"
_RECIPIENT: Final = Actor("client")


class Seal(Protocol):
    def seal(self, content: bytes, purpose: str) -> str: ...

    def open(self, text: str, purpose: str) -> bytes | None: ...


class ConsentService:
    """`mac` names an address of a client without telling it."""

    def __init__(
        self,
        *,
        consent: ConsentRepository,
        recorder: Recorder,
        mac: Callable[[UUID, str], bytes],
        seal: Seal,
    ) -> None:
        self._consent = consent
        self._recorder = recorder
        self._mac = mac
        self._seal = seal

    async def preferences(self, principal: Principal, _: PreferencesGet) -> PreferencesOut:
        return PreferencesOut(preferences=await self._consent.preferences(principal.user_id))

    async def prefer(
        self, principal: Principal, command: PreferencesPut | PreferencesPatch
    ) -> PreferencesOut:
        """Keep what the caller chose: all of it, or what changes."""
        if isinstance(command, PreferencesPut):
            await self._consent.forget_preferences(principal.user_id)
        chosen = {
            category: {str(channel): wanted for channel, wanted in channels.items()}
            for category, channels in command.preferences.items()
        }
        await self._consent.prefer(principal.client_id, principal.user_id, chosen)
        return PreferencesOut(preferences=await self._consent.preferences(principal.user_id))

    async def wants(self, user_id: UUID, *, category: str, channel: str) -> bool:
        """Tell whether a person wants a category on a channel."""
        chosen = await self._consent.preferences(user_id)
        return policies.wants(chosen, category=category, channel=channel)

    async def suppress(
        self,
        principal: Principal | Actor,
        client_id: UUID,
        command: SuppressionCreate,
        *,
        over: Collection[str] | None = None,
    ) -> SuppressionKept:
        """Send nothing more to an address; doing it again renews it.

        `over`: only what has one of these reasons, or has expired, is renewed.
        """
        kept, is_new = await self._consent.suppress(
            Suppression(
                id=uuid7(),
                client_id=client_id,
                channel=command.channel,
                address_hash=self.name_address(client_id, command.channel, command.address),
                address_hint=policies.hint(policies.canonical(command.channel, command.address)),
                scope=command.scope,
                reason=command.reason,
                expires_at=command.expires_at,
            ),
            over=over,
        )
        if is_new:
            self._recorder.audit(
                client_id,
                principal,
                "suppression.create",
                f"suppression:{kept.id}",
                channel=kept.channel,
                scope=kept.scope,
                reason=kept.reason,
            )
        return SuppressionKept(**shown(kept).model_dump(), created=is_new)

    async def suppress_found(
        self,
        client_id: UUID,
        address: str,
        *,
        reason: str,
        scope: str = "all",
        expires_at: datetime | None = None,
    ) -> None:
        """Send nothing more to an address of which a provider told; what says more stays."""
        await self.suppress(
            SYSTEM,
            client_id,
            SuppressionCreate.model_validate(
                {
                    "channel": "email",
                    "address": address,
                    "scope": scope,
                    "reason": reason,
                    "expires_at": expires_at,
                }
            ),
            over=policies.replaced_by(reason),
        )

    async def soft_bounce(self, client_id: UUID, address: str, delivery_id: UUID) -> bool:
        """Note that an address did not take a mail; True: it gets nothing for some days now.

        A mail counts once, however often it is told.
        """
        count = await self._consent.count_soft_bounce(
            client_id,
            self.name_address(client_id, "email", address),
            delivery_id,
            days=policies.SOFT_DAYS,
        )
        if count < policies.SOFT_BOUNCES:
            return False
        until = await self._consent.now() + policies.SOFT_REST
        await self.suppress_found(client_id, address, reason="soft_bounce", expires_at=until)
        return True

    async def page(self, principal: Principal, command: SuppressionList) -> Page[SuppressionOut]:
        hashes = None
        if command.address is not None:
            channels = CHANNELS if command.channel is None else (command.channel,)
            hashes = [
                self.name_address(principal.client_id, it, command.address) for it in channels
            ]
        found, counted = await self._consent.page(
            principal.client_id, command, channel=command.channel, hashes=hashes
        )
        return Page[SuppressionOut].of([shown(each) for each in found], command, counted)

    async def get(self, principal: Principal, command: SuppressionPath) -> SuppressionOut:
        found = await self._consent.find(principal.client_id, command.id)
        if found is None:
            raise SuppressionNotFoundError
        return shown(found)

    async def delete(self, principal: Principal, command: SuppressionPath) -> Empty:
        """Let an address get notifications again.

        Raises:
            SuppressionNotFoundError: there is none.
        """
        if not await self._consent.remove(principal.client_id, command.id):
            raise SuppressionNotFoundError
        self._recorder.audit(
            principal.client_id, principal, "suppression.delete", f"suppression:{command.id}"
        )
        return Empty()

    async def barred(
        self,
        client_id: UUID,
        asked: Sequence[tuple[str, UUID | None, str | None]],
        *,
        category: str,
        priority: str,
    ) -> list[str | None]:
        """Tell for each (channel, person, address) why it must not get a notification, or None.

        What a person chose does not hold for what is critical.
        """
        named = [
            (
                channel,
                user_id,
                b"" if address is None else self.name_address(client_id, channel, address),
            )
            for channel, user_id, address in asked
        ]
        against: dict[tuple[str, bytes], list[Suppression]] = {}
        hashes = sorted({name for _, _, name in named if name})
        for found in await self._consent.of_addresses(client_id, hashes):
            against.setdefault((found.channel, found.address_hash), []).append(found)
        people = sorted({user_id for _, user_id, _ in named if user_id is not None})
        chosen = {} if priority == "critical" else await self._consent.preferences_of(people)

        def why(channel: str, user_id: UUID | None, name: bytes) -> str | None:
            for it in against.get((channel, name), ()):
                if policies.blocks(
                    scope=it.scope, reason=it.reason, category=category, priority=priority
                ):
                    return it.reason
            mine = {} if user_id is None else chosen.get(user_id, {})
            wanted = policies.wants(mine, category=category, channel=channel)
            return None if wanted else "preference"

        return [why(*each) for each in named]

    def name_address(self, client_id: UUID, channel: str, address: str) -> bytes:
        """Name an address without telling it; each client's names are its own."""
        return self._mac(client_id, f"{channel}|{policies.canonical(channel, address)}")

    def read_token(self, token: str) -> tuple[UUID, str, str]:
        """Read a token: client, address and category.

        Raises:
            UnsubscribeTokenError: it is not from here.
        """
        content = self._seal.open(token, PURPOSE)
        if content is None:
            raise UnsubscribeTokenError
        members = orjson.loads(content)
        return UUID(members["c"]), members["a"], members["k"]

    async def unsubscribe(self, token: str) -> str:
        """End a category for an address; again is as good as once. Gives the category.

        Raises:
            UnsubscribeTokenError: the token is not from here.
        """
        client_id, address, category = self.read_token(token)
        await self.suppress(
            _RECIPIENT,
            client_id,
            SuppressionCreate(
                channel="email",
                address=address,
                scope=f"category:{category}",
                reason="unsubscribe",
            ),
        )
        return category


def unsubscribe_token(seal: Seal, client_id: UUID, *, address: str, category: str) -> str:
    """Make the token of an unsubscribe link: it works for ever, and tells nothing by itself."""
    members = {"c": str(client_id), "a": address, "k": category}
    return seal.seal(orjson.dumps(members), PURPOSE)


def shown(suppression: Suppression) -> SuppressionOut:
    return SuppressionOut(
        id=suppression.id,
        channel=suppression.channel,
        address_hint=suppression.address_hint,
        scope=suppression.scope,
        reason=suppression.reason,
        created_at=suppression.created_at,
        expires_at=suppression.expires_at,
    )
