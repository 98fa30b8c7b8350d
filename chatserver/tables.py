"""Every table, in one place, so that Alembic sees them all."""

from chatserver.api_keys.models import KeyFamily, RetiredKey
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
from chatserver.infra.audit import AuditRow
from chatserver.infra.cluster import ClusterGeneration
from chatserver.infra.event_log import RoomEvent
from chatserver.infra.idempotency import IdempotencyRecord
from chatserver.infra.jobs import Job
from chatserver.infra.outbox import OutboxRow
from chatserver.infra.quotas import ClientUsage
from chatserver.kernel.tables import METADATA
from chatserver.privacy.models import Erasure, ErasureRoom
from chatserver.rooms.models import Departure, Member, Room
from chatserver.users.models import User

__all__ = [
    "METADATA",
    "AiUsage",
    "AuditRow",
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
    "Departure",
    "Document",
    "EmbeddingModel",
    "Erasure",
    "ErasureRoom",
    "Generation",
    "IdempotencyRecord",
    "Job",
    "JwtIssuer",
    "KeyFamily",
    "Member",
    "Message",
    "OutboxRow",
    "Receipt",
    "RetiredKey",
    "Room",
    "RoomBot",
    "RoomEvent",
    "StagedPart",
    "TrainingJob",
    "User",
]
