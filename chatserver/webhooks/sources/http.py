"""REST: a client's inbound sources, what came by them, and trying rules."""

from typing import Final

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty
from chatserver.transport.registry import MASTER, Route, operation
from chatserver.webhooks.sources.errors import (
    InboundEventNotFoundError,
    LastSecretError,
    SourceNotFoundError,
    SourceSecretNotFoundError,
    SourceSlugTakenError,
)
from chatserver.webhooks.sources.history import HistoryService
from chatserver.webhooks.sources.schemas import (
    EventDetails,
    EventList,
    EventPage,
    EventPath,
    RefusalList,
    ReplayDead,
    Replayed,
    SecretAdd,
    SecretAdded,
    SecretPath,
    SourceCreate,
    SourceCreated,
    SourceList,
    SourceOut,
    SourcePath,
    SourceUpdate,
    Tried,
    TrySource,
)
from chatserver.webhooks.sources.service import SourceService


class SourcesHttp:
    def __init__(self, sources: Open[SourceService], history: Open[HistoryService]) -> None:
        self._sources = sources
        self._history = history

    @operation(
        "source.create",
        SourceCreate,
        SourceCreated,
        callers=MASTER,
        errors=(PayloadInvalidError, SourceSlugTakenError),
    )
    async def create(self, principal: Principal, command: SourceCreate) -> SourceCreated:
        """Make an inbound source.

        Its requests go to `/webhooks/{client_slug}/{slug}`. A secret that the server makes is in
        this answer and never again.
        """
        async with self._sources() as sources:
            return await sources.create(principal, command)

    @operation("source.list", SourceList, Page[SourceOut], callers=MASTER)
    async def list(self, principal: Principal, command: SourceList) -> Page[SourceOut]:
        """List the inbound sources, by slug."""
        async with self._sources() as sources:
            return await sources.list(principal, command)

    @operation("source.get", SourcePath, SourceOut, callers=MASTER, errors=(SourceNotFoundError,))
    async def get(self, principal: Principal, command: SourcePath) -> SourceOut:
        """Show an inbound source."""
        async with self._sources() as sources:
            return await sources.get(principal, command)

    @operation(
        "source.update",
        SourceUpdate,
        SourceOut,
        callers=MASTER,
        errors=(SourceNotFoundError, PayloadInvalidError),
    )
    async def update(self, principal: Principal, command: SourceUpdate) -> SourceOut:
        """Change an inbound source; `rules` replaces all of its rules."""
        async with self._sources() as sources:
            return await sources.update(principal, command)

    @operation("source.delete", SourcePath, Empty, callers=MASTER, errors=(SourceNotFoundError,))
    async def delete(self, principal: Principal, command: SourcePath) -> Empty:
        """Delete an inbound source with all that came by it."""
        async with self._sources() as sources:
            return await sources.delete(principal, command)

    @operation(
        "source.add_secret",
        SecretAdd,
        SecretAdded,
        callers=MASTER,
        errors=(SourceNotFoundError, PayloadInvalidError),
    )
    async def add_secret(self, principal: Principal, command: SecretAdd) -> SecretAdded:
        """Let a further secret sign.

        All secrets that live are tried. `expire_others_in_s` ends the others after a while: that
        is how a secret is replaced without losing a request.
        """
        async with self._sources() as sources:
            return await sources.add_secret(principal, command)

    @operation(
        "source.end_secret",
        SecretPath,
        Empty,
        callers=MASTER,
        errors=(SourceNotFoundError, SourceSecretNotFoundError, LastSecretError),
    )
    async def end_secret(self, principal: Principal, command: SecretPath) -> Empty:
        """End a secret now; the last one can't be ended."""
        async with self._sources() as sources:
            return await sources.end_secret(principal, command)

    @operation("source.events", EventList, EventPage, callers=MASTER, errors=(SourceNotFoundError,))
    async def events(self, principal: Principal, command: EventList) -> EventPage:
        """List what came, the newest first; kept for 90 days. `status=dead` are dead letters."""
        async with self._history() as history:
            return await history.list_events(principal, command)

    @operation(
        "source.event",
        EventPath,
        EventDetails,
        callers=MASTER,
        errors=(InboundEventNotFoundError,),
    )
    async def event(self, principal: Principal, command: EventPath) -> EventDetails:
        """Show what came in one request, and what was done about it."""
        async with self._history() as history:
            return await history.get_event(principal, command)

    @operation(
        "source.replay_event",
        EventPath,
        Replayed,
        callers=MASTER,
        errors=(InboundEventNotFoundError,),
    )
    async def replay(self, principal: Principal, command: EventPath) -> Replayed:
        """Run the rules, as they are now, over an event again.

        What was done stays done and is not done again: an action is known by its rule's name and
        its place in the rule. An event that is worked on is left alone (`replayed: 0`).
        """
        async with self._history() as history:
            return await history.replay(principal, command)

    @operation("source.replay", ReplayDead, Replayed, callers=MASTER, errors=(SourceNotFoundError,))
    async def replay_dead(self, principal: Principal, command: ReplayDead) -> Replayed:
        """Replay dead events of a source, the oldest first."""
        async with self._history() as history:
            return await history.replay_dead(principal, command)

    @operation(
        "source.refusals", SourcePath, RefusalList, callers=MASTER, errors=(SourceNotFoundError,)
    )
    async def refusals(self, principal: Principal, command: SourcePath) -> RefusalList:
        """Tell why the last requests were refused: the signature debugger.

        Whoever sent them is told nothing; their bodies are not kept.
        """
        async with self._history() as history:
            return await history.refusals(principal, command)

    @operation(
        "source.test",
        TrySource,
        Tried,
        callers=MASTER,
        errors=(SourceNotFoundError, InboundEventNotFoundError, PayloadInvalidError),
    )
    async def test(self, principal: Principal, command: TrySource) -> Tried:
        """Try rules on the last event, on another one, or on a request of your own; no effects."""
        async with self._history() as history:
            return await history.test(principal, command)


_SOURCE: Final = "/webhooks/sources/{id}"
ROUTES: Final = (
    Route(method="POST", path="/webhooks/sources", operation="source.create", status=201),
    Route(method="GET", path="/webhooks/sources", operation="source.list"),
    Route(method="GET", path=_SOURCE, operation="source.get"),
    Route(method="PATCH", path=_SOURCE, operation="source.update"),
    Route(method="DELETE", path=_SOURCE, operation="source.delete"),
    Route(method="POST", path=f"{_SOURCE}/secrets", operation="source.add_secret", status=201),
    Route(method="DELETE", path=f"{_SOURCE}/secrets/{{secret_id}}", operation="source.end_secret"),
    Route(method="GET", path=f"{_SOURCE}/events", operation="source.events"),
    Route(method="GET", path=f"{_SOURCE}/events/{{event_id}}", operation="source.event"),
    Route(
        method="POST",
        path=f"{_SOURCE}/events/{{event_id}}/replay",
        operation="source.replay_event",
    ),
    Route(method="POST", path=f"{_SOURCE}/replay_dead", operation="source.replay"),
    Route(method="GET", path=f"{_SOURCE}/refusals", operation="source.refusals"),
    Route(method="POST", path=f"{_SOURCE}/test", operation="source.test"),
)
