"""How text messages are sent: the half that every provider shares. No provider has an adapter yet.

An adapter is a `TextProvider`, named in `wiring/sending.py` by the kind of its providers, with its
settings in `providers/schemas.py`. Until there is one, deliveries end as `no_provider`.
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from chatserver.deliveries.models import Claim, Sent
from chatserver.infra.mail import Outcome
from chatserver.infra.secrets import SecretBox, UnreadableSecretError
from chatserver.notifications.requests.senders import (
    Lookup,
    Prepared,
    ProviderReader,
    handed_over,
    skipped,
)


class TextProvider(Protocol):
    """Hands texts over to one kind of provider."""

    async def send(
        self, config: dict[str, Any], recipient: str, text: str, *, delivery_id: str
    ) -> Outcome:
        """Hand one text over, to a number as `+15551234567`; what goes wrong is an outcome."""
        ...


class TextSender(ProviderReader):
    """Sends texts."""

    def __init__(
        self,
        lookup: Lookup,
        box: SecretBox,
        *,
        providers: Mapping[str, TextProvider],
        config_place: Any,  # noqa: ANN401 - a function of two ids
    ) -> None:
        super().__init__(lookup, box, config_place=config_place)
        self._providers = providers

    async def send(self, claim: Claim, prepared: Prepared | None) -> Sent:
        """Send it once. Never raises but for cancellation: what goes wrong is an outcome."""
        if (not_tried := skipped(prepared)) is not None:
            return not_tried
        assert prepared is not None  # noqa: S101 - `skipped` said so
        row = prepared.row
        provider = self._providers.get(row["provider_kind"])
        if provider is None or row["provider_config"] is None:
            return Sent(outcome="configuration", error="provider_gone")
        try:
            config = self._config(claim, row)
        except UnreadableSecretError:
            return Sent(outcome="configuration", error="credentials_unreadable")
        began = time.monotonic()
        outcome = await provider.send(
            config, prepared.address, prepared.content["text"], delivery_id=str(claim.id)
        )
        latency_ms = int((time.monotonic() - began) * 1000)
        # A text costs, and nobody can tell a repeat from a second one.
        return handed_over(outcome, latency_ms, may_repeat=False)
