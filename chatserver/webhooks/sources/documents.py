"""What came, as rules see it."""

from chatserver.kernel.clock import rfc3339
from chatserver.webhooks.sources.models import InboundEvent
from chatserver.webhooks.sources.payloads import Document, payload_of


def document_of(event: InboundEvent, slug: str) -> Document:
    """Take an event apart for rules."""
    return Document(
        payload=payload_of(event.headers, event.body),
        headers=event.headers,
        event={
            "event.id": str(event.id),
            "event.external_id": event.external_id,
            "event.received_at": rfc3339(event.received_at),
            "source.slug": slug,
        },
    )
