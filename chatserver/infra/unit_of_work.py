"""One call, one transaction: rows, log and outbox together or not at all; then the live push."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.infra import audit, event_log, outbox, tracing
from chatserver.infra.database import Database
from chatserver.kernel.events import Actor, Committed, Fact
from chatserver.kernel.principal import Principal

Service = TypeVar("Service")
log = structlog.get_logger()


class Recorder(Protocol):
    """What services see of a unit of work."""

    def record(self, fact: Fact) -> None:
        """Announce a fact; it is shown after the commit, and only then."""
        ...

    def next_seq(self, room_id: UUID, last_seq: int) -> int:
        """Tell which seq the next recorded fact of a locked room will get."""
        ...

    def audit(
        self,
        client_id: UUID,
        actor: Principal | Actor,
        action: str,
        subject: str,
        **details: Any,  # noqa: ANN401 - JSON
    ) -> None:
        """Note who did what, for the audit log; see `infra/audit.py`."""
        ...

    def after_commit(self, run: Callable[[], None]) -> None:
        """Do something harmless to lose once the transaction is committed."""
        ...


class UnitOfWork:
    """A session, and what is to be told once it is committed."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.facts: list[Fact] = []
        self.committed: list[Committed] = []
        self._audited: list[dict[str, Any]] = []
        self._after: list[Callable[[], None]] = []
        self._has_later = False

    def record(self, fact: Fact) -> None:
        self.facts.append(fact)

    def next_seq(self, room_id: UUID, last_seq: int) -> int:
        waiting = sum(1 for fact in self.facts if fact.sequenced and fact.room_id == room_id)
        return last_seq + waiting + 1

    def audit(
        self,
        client_id: UUID,
        actor: Principal | Actor,
        action: str,
        subject: str,
        **details: Any,  # noqa: ANN401 - JSON
    ) -> None:
        self._audited.append(
            {
                "client_id": client_id,
                "actor": actor,
                "action": action,
                "subject": subject,
                "details": details,
            }
        )

    def after_commit(self, run: Callable[[], None]) -> None:
        self._after.append(run)

    async def seal(self, generation: int, has_later: Callable[[str], bool]) -> None:
        """Write what was recorded to the log and, where something follows later, to the outbox."""
        if self._audited:
            await self.session.flush()
        for noted in self._audited:
            await audit.record(self.session, **noted)
        if not self.facts:
            return
        await self.session.flush()
        self.committed, seqs = await event_log.append(self.session, self.facts, generation)
        self._has_later = await outbox.add(self.session, self.facts, seqs, has_later)

    def tell(self, publish: Callable[[list[Committed]], None], ring: Callable[[], None]) -> None:
        """Run what waits for the commit. A failing push is logged; the log repairs it."""
        try:
            if self.committed:
                publish(self.committed)
            if self._has_later:
                ring()
            for run in self._after:
                run()
        except Exception:
            log.exception("push_failed", facts=[fact.type for fact in self.committed])


class Units:
    """Opens units of work.

    `generation` is asked at the end of each; `publish` shows its facts after the commit, and `ring`
    wakes whoever dispatches the outbox.
    """

    def __init__(
        self,
        database: Database,
        *,
        generation: Callable[[], int],
        publish: Callable[[list[Committed]], None],
        has_later: Callable[[str], bool],
        ring: Callable[[], None],
    ) -> None:
        self._database = database
        self._generation = generation
        self._publish = publish
        self._has_later = has_later
        self._ring = ring

    def open(
        self, build: Callable[[UnitOfWork], Service]
    ) -> Callable[[], AbstractAsyncContextManager[Service]]:
        """Give the `Open[Service]` of a builder: the block is the transaction."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[Service]:
            async with self._database.transaction() as session:
                work = UnitOfWork(session)
                yield build(work)
                await work.seal(self._generation(), self._has_later)
                began = tracing.moment() if tracing.is_on() else 0
            if began and work.committed:
                tracing.passed("commit", began, facts=len(work.committed))
                with tracing.span("fan-out", facts=len(work.committed)):
                    work.tell(self._publish, self._ring)
            else:
                work.tell(self._publish, self._ring)

        return opened
