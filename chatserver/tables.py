"""Every table, in one place, so that Alembic sees them all."""

from chatserver.api_keys.models import KeyFamily, RetiredKey
from chatserver.chat.models import Message
from chatserver.clients.models import Client, ClientKey
from chatserver.infra.cluster import ClusterGeneration
from chatserver.infra.event_log import RoomEvent
from chatserver.infra.idempotency import IdempotencyRecord
from chatserver.infra.jobs import Job
from chatserver.infra.outbox import OutboxRow
from chatserver.kernel.tables import METADATA
from chatserver.rooms.models import Departure, Member, Room
from chatserver.users.models import User

__all__ = [
    "METADATA",
    "Client",
    "ClientKey",
    "ClusterGeneration",
    "Departure",
    "IdempotencyRecord",
    "Job",
    "KeyFamily",
    "Member",
    "Message",
    "OutboxRow",
    "RetiredKey",
    "Room",
    "RoomEvent",
    "User",
]
