"""What a provider's condition is announced with, to the client's webhook endpoints."""

from typing import Final

from chatserver.kernel.events import SYSTEM, Fact
from chatserver.kernel.wire import Answer, Id
from chatserver.providers.models import Provider

SUMMARIES: Final = {
    "provider.degraded": "A provider failed several times in a row.",
    "provider.paused": "A provider fails: others take over, and one delivery at a time probes it.",
    "provider.resumed": "A paused provider works again.",
    "provider.disabling": "A provider failed for four days; in one more it is disabled.",
    "provider.disabled": "A provider was disabled: nothing goes out by it any more.",
}


class ProviderData(Answer):
    """What `provider.*` facts carry."""

    provider_id: Id
    channel: str
    kind: str
    name: str
    state: str
    reason: str | None


def provider_fact(told: str, provider: Provider, *, state: str, reason: str | None) -> Fact:
    """Announce `degraded`, `paused`, `resumed`, `disabling` or `disabled`."""
    return Fact(
        type=f"provider.{told}",
        client_id=provider.client_id,
        room_id=None,
        actor=SYSTEM,
        data=ProviderData(
            provider_id=provider.id,
            channel=provider.channel,
            kind=provider.kind,
            name=provider.name,
            state=state,
            reason=reason,
        ).model_dump(mode="json"),
        sequenced=False,
    )
