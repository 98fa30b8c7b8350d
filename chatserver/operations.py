"""Everything that callers can do, on one screen: each feature's operations, routes and facts."""

from typing import Any, Final

from chatserver.api_keys import errors as auth
from chatserver.api_keys.http import ROUTES as API_KEY_ROUTES
from chatserver.api_keys.http import ApiKeysHttp
from chatserver.api_keys.sockets import AuthCommands
from chatserver.assistant.bots.http import ROUTES as BOT_ROUTES
from chatserver.assistant.bots.http import SEAT_ROUTES, BotsHttp
from chatserver.assistant.bots.sockets import SeatCommands
from chatserver.assistant.documents.http import FACTS as DOCUMENT_FACTS
from chatserver.assistant.documents.http import ROUTES as DOCUMENT_ROUTES
from chatserver.assistant.documents.http import DocumentsHttp
from chatserver.assistant.generation.events import FACTS as ANSWER_FACTS
from chatserver.assistant.generation.http import ROUTES as ANSWER_ROUTES
from chatserver.assistant.generation.http import AnswersHttp
from chatserver.assistant.generation.sockets import AnswerCommands
from chatserver.assistant.retrieval.http import ROUTES as RETRIEVAL_ROUTES
from chatserver.assistant.retrieval.http import RetrievalHttp
from chatserver.assistant.sessions.http import ROUTES as ASSISTANT_SESSION_ROUTES
from chatserver.assistant.sessions.http import SessionsHttp
from chatserver.assistant.training.http import ROUTES as TRAINING_ROUTES
from chatserver.assistant.training.http import TrainingHttp
from chatserver.bootstrap import Container
from chatserver.chat.http import COMMANDS as CHAT_READS
from chatserver.chat.http import ROUTES as CHAT_ROUTES
from chatserver.chat.http import ChatHttp
from chatserver.chat.sockets import FACTS as CHAT_FACTS
from chatserver.chat.sockets import NAMESPACE as CHAT
from chatserver.chat.sockets import ChangeCommands, ChatCommands, ReadCommands, TypingCommands
from chatserver.clients.http import (
    CLIENT_ROUTES,
    KEY_ROUTES,
    TOKEN_ROUTES,
    ClientKeysHttp,
    ClientsHttp,
    TokensHttp,
)
from chatserver.deliveries.http import MANY_ROUTES as MANY_DELIVERY_ROUTES
from chatserver.deliveries.http import ROUTES as DELIVERY_ROUTES
from chatserver.deliveries.http import DeliveriesHttp, ManyDeliveriesHttp
from chatserver.files.http import ROUTES as FILE_ROUTES
from chatserver.files.http import FilesHttp
from chatserver.invites.http import ROUTES as INVITE_ROUTES
from chatserver.invites.sockets import InviteCommands
from chatserver.kernel.principal import Scope
from chatserver.moderation.http import FLAG_ROUTES, RULE_ROUTES, RulesHttp
from chatserver.moderation.sockets import FlagCommands
from chatserver.notifications.batches.http import ROUTES as BATCH_ROUTES
from chatserver.notifications.batches.http import BatchesHttp
from chatserver.notifications.consent.http import ROUTES as CONSENT_ROUTES
from chatserver.notifications.consent.http import ConsentHttp
from chatserver.notifications.devices.http import ROUTES as DEVICE_ROUTES
from chatserver.notifications.devices.http import DevicesHttp
from chatserver.notifications.inbox.sockets import FACTS as INBOX_FACTS
from chatserver.notifications.inbox.sockets import NAMESPACE as NOTIFICATIONS
from chatserver.notifications.inbox.sockets import ROUTES as INBOX_ROUTES
from chatserver.notifications.inbox.sockets import InboxCommands
from chatserver.notifications.requests.http import ROUTES as NOTIFICATION_ROUTES
from chatserver.notifications.requests.http import NotificationsHttp
from chatserver.privacy.http import FACTS as PRIVACY_FACTS
from chatserver.privacy.http import ROUTES as PRIVACY_ROUTES
from chatserver.privacy.http import HoldsHttp, PrivacyHttp
from chatserver.providers.http import ROUTES as PROVIDER_ROUTES
from chatserver.providers.http import ProvidersHttp
from chatserver.realtime.running import Running
from chatserver.rooms.http import COMMANDS as MEMBER_COMMANDS
from chatserver.rooms.http import ROUTES as ROOM_ROUTES
from chatserver.rooms.http import RoomsHttp
from chatserver.rooms.sockets import FACTS as ROOM_FACTS
from chatserver.rooms.sockets import NAMESPACE as ROOMS
from chatserver.rooms.sockets import (
    PresenceCommands,
    RoomCommands,
    SanctionCommands,
    WatchCommands,
)
from chatserver.search.http import ROUTES as SEARCH_ROUTES
from chatserver.search.http import SearchCommands
from chatserver.support.http import ROUTES as SUPPORT_ROUTES
from chatserver.support.sockets import SupportCommands
from chatserver.transport.registry import Registry
from chatserver.transport.sessions import FACTS as SESSION_FACTS
from chatserver.transport.usage import ROUTES as USAGE_ROUTES
from chatserver.transport.usage import UsageHttp
from chatserver.users.http import ROUTES as USER_ROUTES
from chatserver.users.http import UsersHttp
from chatserver.webhooks.endpoints.http import FACTS as ENDPOINT_FACTS
from chatserver.webhooks.endpoints.http import ROUTES as ENDPOINT_ROUTES
from chatserver.webhooks.endpoints.http import EndpointsHttp
from chatserver.webhooks.sources.http import ROUTES as SOURCE_ROUTES
from chatserver.webhooks.sources.http import SourcesHttp

# What a key must be able to read to connect a namespace.
NAMESPACE_SCOPES: Final = {
    ROOMS: Scope.ROOMS_READ,
    CHAT: Scope.CHAT_READ,
    NOTIFICATIONS: Scope.NOTIFICATIONS_READ,
}
NAMESPACES: Final = tuple(NAMESPACE_SCOPES)


def build_registry(container: Container | None = None, current: Running | None = None) -> Registry:
    """Declare everything that callers can do. Without a container it is only good for documents."""
    parts: Any = container or _Unconnected()
    registry = Registry(
        auth_errors=(
            auth.AuthMissingError,
            auth.AuthInvalidError,
            auth.AuthExpiredError,
            auth.AuthRevokedError,
            auth.AuthReuseDetectedError,
        )
    )
    registry.add(ClientsHttp(parts.open_clients), routes=CLIENT_ROUTES)
    registry.add(ClientKeysHttp(parts.open_master_keys), routes=KEY_ROUTES)
    registry.add(TokensHttp(parts.open_tokens), routes=TOKEN_ROUTES)
    registry.add(UsersHttp(parts.open_users), routes=USER_ROUTES)
    registry.add(ApiKeysHttp(parts.open_api_keys, parts.waiting), routes=API_KEY_ROUTES)
    registry.add(RoomCommands(parts.open_rooms, parts.open_members), namespaces=(ROOMS,))
    registry.add(SanctionCommands(parts.open_sanctions), namespaces=(ROOMS,))
    registry.add(
        RoomsHttp(parts.open_rooms, parts.open_members, parts.open_sanctions),
        namespaces=(ROOMS,),
        commands=MEMBER_COMMANDS,
        routes=ROOM_ROUTES,
    )
    registry.add(
        WatchCommands(parts.open_rooms, current or parts.current), namespaces=(ROOMS, CHAT)
    )
    registry.add(
        PresenceCommands(parts.open_rooms, parts.open_users, current or parts.current),
        namespaces=(ROOMS,),
    )
    registry.add(ChatCommands(parts.chat, parts.catch_up), namespaces=(CHAT,))
    registry.add(ChangeCommands(parts.open_changes), namespaces=(CHAT,))
    registry.add(ReadCommands(parts.reads), namespaces=(CHAT,))
    registry.add(TypingCommands(parts.open_rooms, current or parts.current), namespaces=(CHAT,))
    registry.add(
        ChatHttp(
            parts.chat,
            parts.catch_up,
            parts.open_changes,
            parts.reads,
            parts.traces,
            current or parts.current,
        ),
        namespaces=(CHAT,),
        commands=CHAT_READS,
        routes=CHAT_ROUTES,
    )
    registry.add(SearchCommands(parts.search.service), namespaces=(CHAT,), routes=SEARCH_ROUTES)
    registry.add(FilesHttp(parts.files.service), routes=FILE_ROUTES)
    registry.add(InviteCommands(parts.open_invites), namespaces=(ROOMS,), routes=INVITE_ROUTES)
    registry.add(SupportCommands(parts.open_support), namespaces=(ROOMS,), routes=SUPPORT_ROUTES)
    registry.add(FlagCommands(parts.flags), namespaces=(CHAT,), routes=FLAG_ROUTES)
    registry.add(RulesHttp(parts.open_rules), routes=RULE_ROUTES)
    registry.add(PrivacyHttp(parts.open_privacy, parts.privacy.exporter))
    registry.add(HoldsHttp(parts.open_holds), routes=PRIVACY_ROUTES)
    registry.add(
        AuthCommands(parts.identifier, parts.credentials.rotation, current or parts.current),
        namespaces=NAMESPACES,
    )
    registry.add(
        InboxCommands(parts.notifications.open_inbox),
        namespaces=(NOTIFICATIONS,),
        routes=INBOX_ROUTES,
    )
    registry.add(DevicesHttp(parts.notifications.open_devices), routes=DEVICE_ROUTES)
    registry.add(ConsentHttp(parts.notifications.open_consent), routes=CONSENT_ROUTES)
    registry.add(
        SourcesHttp(parts.sources.open_sources, parts.sources.open_history), routes=SOURCE_ROUTES
    )
    hooks = parts.webhooks
    registry.add(
        ProvidersHttp(parts.providers.open_providers, parts.providers.checks),
        routes=PROVIDER_ROUTES,
    )
    registry.add(NotificationsHttp(parts.sending.open_notifications), routes=NOTIFICATION_ROUTES)
    registry.add(BatchesHttp(parts.sending.open_batches), routes=BATCH_ROUTES)
    registry.add(DeliveriesHttp(hooks.open_deliveries, hooks.headers), routes=DELIVERY_ROUTES)
    registry.add(
        ManyDeliveriesHttp(parts.sending.open_many, parts.sending.exporter),
        routes=MANY_DELIVERY_ROUTES,
    )
    registry.add(
        EndpointsHttp(hooks.open_endpoints, hooks.open_replays, hooks.reader),
        routes=ENDPOINT_ROUTES,
    )
    registry.add(UsageHttp(parts.gate, current or parts.current), routes=USAGE_ROUTES)
    known = parts.documents
    registry.add(BotsHttp(known.open_bots), routes=BOT_ROUTES)
    registry.add(SeatCommands(known.open_bots), namespaces=(ROOMS,), routes=SEAT_ROUTES)
    registry.add(DocumentsHttp(known.open_documents, known.intake), routes=DOCUMENT_ROUTES)
    registry.add(
        TrainingHttp(known.open_training, known.open_documents, known, known.open_bots),
        routes=TRAINING_ROUTES,
    )
    registry.add(RetrievalHttp(known.open_bots, known.retrieval), routes=RETRIEVAL_ROUTES)
    assistant = parts.assistant
    registry.add(AnswerCommands(assistant.open_answers, assistant.follower), namespaces=(CHAT,))
    registry.add(AnswersHttp(assistant.follower, assistant.open_usage), routes=ANSWER_ROUTES)
    registry.add(
        SessionsHttp(assistant.open_sessions, parts.chat, assistant.follower),
        routes=ASSISTANT_SESSION_ROUTES,
    )
    registry.add_facts(
        *(*ROOM_FACTS, *CHAT_FACTS, *DOCUMENT_FACTS, *ANSWER_FACTS, *INBOX_FACTS),
        *(*PRIVACY_FACTS, *ENDPOINT_FACTS, *SESSION_FACTS),
    )
    return registry


class _Unconnected:
    """Stands where a service would, as long as nobody calls one."""

    def __getattr__(self, name: str) -> "_Unconnected":
        return self
