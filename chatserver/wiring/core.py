"""What every feature is built from: the database, the bus, the doorbell, keys, limits."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from chatserver.clients.repository import ClientNumbersLookup
from chatserver.infra.addresses import Reach
from chatserver.infra.cluster import Generation
from chatserver.infra.database import Database
from chatserver.infra.http_client import GuardedClient
from chatserver.infra.idempotency import IdempotencyStore
from chatserver.infra.job_kinds import DISPATCH_OUTBOX
from chatserver.infra.jobs import Doorbell
from chatserver.infra.quotas import Quotas
from chatserver.infra.rate_limits import RateLimiter
from chatserver.infra.secrets import KeyHasher, SecretBox
from chatserver.infra.slow_hash import SlowHasher
from chatserver.infra.unit_of_work import UnitOfWork, Units
from chatserver.kernel.events import Committed
from chatserver.kernel.opening import Open
from chatserver.reactions import has_later
from chatserver.realtime.ports import Broadcaster
from chatserver.realtime.publisher import BusPublisher, BusSettings
from chatserver.settings import Settings
from chatserver.transport.limits import Gate
from chatserver.transport.numbers import Book

Service = TypeVar("Service")
# Builds a service within a unit of work that others write to, too.
Builder: TypeAlias = Callable[[UnitOfWork], Service]

_BUS_KEY: Final = b"chatserver bus v1|"


class Core:
    """The parts that no feature owns. Services come as `Open[...]`: a block is a transaction.

    A process without sockets publishes over the bus; the server puts its engine in `broadcaster`.
    """

    def __init__(self, settings: Settings, *, name: str) -> None:
        self.settings = settings
        self.database = Database(settings.database_url.get_secret_value(), name=name)
        self.generation = Generation(self.database)
        self.doorbell = Doorbell(settings.queue_url)
        self.hasher = KeyHasher([pepper.get_secret_value() for pepper in settings.key_peppers])
        self.slow = SlowHasher()
        self.box = SecretBox.from_text([key.get_secret_value() for key in settings.secret_keys])
        self.bus = BusSettings(
            url=settings.redis_url.get_secret_value(),
            key=hashlib.sha256(
                _BUS_KEY + settings.key_peppers[0].get_secret_value().encode()
            ).digest(),
            sharded=settings.redis_sharded_pubsub,
        )
        self.publisher = BusPublisher(self.bus, settings.node_id)
        self.broadcaster: Broadcaster = self.publisher
        self.outside = GuardedClient(Reach(private=settings.allow_private_addresses))
        self.answers = IdempotencyStore(self.database, self.box)
        self._units = Units(
            self.database,
            generation=self.generation,
            publish=self.publish,
            has_later=has_later,
            ring=self.ring_outbox,
        )
        self.limiter = RateLimiter(settings.redis_url.get_secret_value())
        self.quotas = Quotas(self.database, self.limiter.redis)
        self.gate = Gate(
            self.limiter,
            Book(
                ClientNumbersLookup(self.database).find,
                limits=settings.limits.model_dump(),
                quotas=settings.quota_values.model_dump(),
            ),
            self.quotas,
            enabled=settings.rate_limits_enabled,
        )

    def open(self, build: Callable[[UnitOfWork], Service]) -> Open[Service]:
        """Give the `Open` of a builder: the block is the transaction, facts are shown after it."""
        return self._units.open(build)

    def publish(self, facts: Sequence[Committed]) -> None:
        """Show committed facts to whoever listens, on every node."""
        self.broadcaster.publish(facts)

    def ring_outbox(self) -> None:
        """Wake whoever dispatches the outbox."""
        self.doorbell.ring([DISPATCH_OUTBOX])
