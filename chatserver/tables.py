"""Every table, in one place, so that Alembic sees them all."""

from chatserver.api_keys.models import KeyFamily, RetiredKey
from chatserver.assistant.answering.models import ContinueWay
from chatserver.assistant.bots.models import Bot, BotUser, RoomBot
from chatserver.assistant.documents.models import (
    BotIndex,
    Chunk,
    ChunkPart,
    ChunkTerm,
    Document,
    StagedPart,
)
from chatserver.assistant.embedding.models import EmbeddingModel
from chatserver.assistant.generation.models import AiUsage, Generation
from chatserver.assistant.retrieval.models import Receipt
from chatserver.assistant.training.models import TrainingJob
from chatserver.chat.models import Message
from chatserver.clients.models import Client, ClientKey, JwtIssuer
from chatserver.deliveries.models import (
    Attempt,
    AttemptPart,
    DayCount,
    Delivery,
    DeliveryEvent,
    FailureTold,
    Target,
)
from chatserver.files.models import MessageFile, ObjectRemoval, StoredFile
from chatserver.infra.audit import AuditRow
from chatserver.infra.cluster import ClusterGeneration
from chatserver.infra.event_log import RoomEvent
from chatserver.infra.idempotency import IdempotencyRecord
from chatserver.infra.jobs import Job
from chatserver.infra.outbox import OutboxRow
from chatserver.infra.quotas import ClientUsage
from chatserver.invites.models import Invite
from chatserver.kernel.tables import METADATA
from chatserver.moderation.models import Flag, ModerationRule
from chatserver.notifications.absences.models import MessageNotice
from chatserver.notifications.batches.models import BatchPart, NotificationBatch
from chatserver.notifications.consent.models import Preference, Suppression
from chatserver.notifications.devices.models import PushDevice
from chatserver.notifications.inbox.models import InAppNotification
from chatserver.notifications.push.models import ServerKey
from chatserver.notifications.requests.models import (
    Notification,
    NotificationContent,
    NotificationDelivery,
    NotificationFile,
)
from chatserver.privacy.models import Erasure, ErasureRoom
from chatserver.providers.models import Provider
from chatserver.rooms.models import Departure, Member, Room
from chatserver.search.models import MessageSearch, SearchProgress
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
    "AiUsage",
    "Attempt",
    "AttemptPart",
    "AuditRow",
    "BatchPart",
    "Bot",
    "BotIndex",
    "BotUser",
    "Chunk",
    "ChunkPart",
    "ChunkTerm",
    "Client",
    "ClientKey",
    "ClientUsage",
    "ClusterGeneration",
    "ContinueWay",
    "DayCount",
    "Delivery",
    "DeliveryEvent",
    "Departure",
    "Document",
    "EmbeddingModel",
    "Endpoint",
    "EndpointSecret",
    "Erasure",
    "ErasureRoom",
    "Event",
    "EventNumber",
    "FailureTold",
    "Flag",
    "Generation",
    "IdempotencyRecord",
    "InAppNotification",
    "InboundEffect",
    "InboundEvent",
    "InboundRefusal",
    "InboundSecret",
    "InboundSource",
    "Invite",
    "Job",
    "JwtIssuer",
    "KeyFamily",
    "Member",
    "Message",
    "MessageFile",
    "MessageNotice",
    "MessageSearch",
    "ModerationRule",
    "Notification",
    "NotificationBatch",
    "NotificationContent",
    "NotificationDelivery",
    "NotificationFile",
    "ObjectRemoval",
    "OutboxRow",
    "Preference",
    "Provider",
    "PushDevice",
    "Receipt",
    "RetiredKey",
    "Room",
    "RoomBot",
    "RoomEvent",
    "SearchProgress",
    "ServerKey",
    "StagedPart",
    "StoredFile",
    "Suppression",
    "Target",
    "TrainingJob",
    "User",
]
