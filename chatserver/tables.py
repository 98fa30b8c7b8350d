"""Every table, in one place, so that Alembic sees them all."""

from chatserver.api_keys.models import KeyFamily, RetiredKey
from chatserver.chat.models import Message
from chatserver.clients.models import Client, ClientKey, JwtIssuer
from chatserver.deliveries.models import Attempt, DayCount, Delivery, Target
from chatserver.infra.audit import AuditRow
from chatserver.infra.cluster import ClusterGeneration
from chatserver.infra.event_log import RoomEvent
from chatserver.infra.idempotency import IdempotencyRecord
from chatserver.infra.jobs import Job
from chatserver.infra.outbox import OutboxRow
from chatserver.infra.quotas import ClientUsage
from chatserver.kernel.tables import METADATA
from chatserver.notifications.consent.models import Preference, Suppression
from chatserver.notifications.devices.models import PushDevice
from chatserver.notifications.inbox.models import InAppNotification
from chatserver.notifications.requests.models import (
    Notification,
    NotificationContent,
    NotificationDelivery,
)
from chatserver.privacy.models import Erasure, ErasureRoom
from chatserver.providers.models import Provider
from chatserver.rooms.models import Departure, Member, Room
from chatserver.users.models import User
from chatserver.webhooks.endpoints.models import Endpoint, EndpointSecret, Event, EventNumber
from chatserver.webhooks.sources.models import (
    InboundEffect,
    InboundEvent,
    InboundRefusal,
    InboundSecret,
    InboundSource,
)

__all__ = [
    "METADATA",
    "Attempt",
    "AuditRow",
    "Client",
    "ClientKey",
    "ClientUsage",
    "ClusterGeneration",
    "DayCount",
    "Delivery",
    "Departure",
    "Endpoint",
    "EndpointSecret",
    "Erasure",
    "ErasureRoom",
    "Event",
    "EventNumber",
    "IdempotencyRecord",
    "InAppNotification",
    "InboundEffect",
    "InboundEvent",
    "InboundRefusal",
    "InboundSecret",
    "InboundSource",
    "Job",
    "JwtIssuer",
    "KeyFamily",
    "Member",
    "Message",
    "Notification",
    "NotificationContent",
    "NotificationDelivery",
    "OutboxRow",
    "Preference",
    "Provider",
    "PushDevice",
    "RetiredKey",
    "Room",
    "RoomEvent",
    "Suppression",
    "Target",
    "User",
]
