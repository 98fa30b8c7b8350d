"""REST: a person's preferences, and a client's suppressed addresses."""

from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import Empty
from chatserver.notifications.consent.errors import SuppressionNotFoundError
from chatserver.notifications.consent.schemas import (
    PreferencesGet,
    PreferencesOut,
    PreferencesPatch,
    PreferencesPut,
    SuppressionCreate,
    SuppressionKept,
    SuppressionList,
    SuppressionOut,
    SuppressionPath,
)
from chatserver.notifications.consent.service import ConsentService
from chatserver.transport.registry import MASTER, USER, Route, operation


class ConsentHttp:
    def __init__(self, consent: Open[ConsentService]) -> None:
        self._consent = consent

    @operation(
        "preference.get",
        PreferencesGet,
        PreferencesOut,
        callers=USER,
        scope=Scope.NOTIFICATIONS_READ,
    )
    async def get_preferences(
        self, principal: Principal, command: PreferencesGet
    ) -> PreferencesOut:
        """Show which categories the caller wants on which channels."""
        async with self._consent() as consent:
            return await consent.preferences(principal, command)

    @operation(
        "preference.put",
        PreferencesPut,
        PreferencesOut,
        callers=USER,
        scope=Scope.NOTIFICATIONS_READ,
    )
    async def put_preferences(
        self, principal: Principal, command: PreferencesPut
    ) -> PreferencesOut:
        """Replace the caller's preferences; what is left out is wanted again."""
        async with self._consent() as consent:
            return await consent.prefer(principal, command)

    @operation(
        "preference.update",
        PreferencesPatch,
        PreferencesOut,
        callers=USER,
        scope=Scope.NOTIFICATIONS_READ,
    )
    async def patch_preferences(
        self, principal: Principal, command: PreferencesPatch
    ) -> PreferencesOut:
        """Change some of the caller's preferences."""
        async with self._consent() as consent:
            return await consent.prefer(principal, command)

    @operation("suppression.create", SuppressionCreate, SuppressionKept, callers=MASTER)
    async def create(self, principal: Principal, command: SuppressionCreate) -> SuppressionKept:
        """Send nothing more to an address, of a category or at all."""
        async with self._consent() as consent:
            return await consent.suppress(principal, principal.client_id, command)

    @operation("suppression.list", SuppressionList, Page[SuppressionOut], callers=MASTER)
    async def list(self, principal: Principal, command: SuppressionList) -> Page[SuppressionOut]:
        """List suppressed addresses; `address` finds what there is against one."""
        async with self._consent() as consent:
            return await consent.page(principal, command)

    @operation(
        "suppression.get",
        SuppressionPath,
        SuppressionOut,
        callers=MASTER,
        errors=(SuppressionNotFoundError,),
    )
    async def get(self, principal: Principal, command: SuppressionPath) -> SuppressionOut:
        """Show a suppression."""
        async with self._consent() as consent:
            return await consent.get(principal, command)

    @operation(
        "suppression.delete",
        SuppressionPath,
        Empty,
        callers=MASTER,
        errors=(SuppressionNotFoundError,),
    )
    async def delete(self, principal: Principal, command: SuppressionPath) -> Empty:
        """Let an address get notifications again."""
        async with self._consent() as consent:
            return await consent.delete(principal, command)


ROUTES: Final = (
    Route(method="GET", path="/me/preferences", operation="preference.get"),
    Route(method="PUT", path="/me/preferences", operation="preference.put"),
    Route(method="PATCH", path="/me/preferences", operation="preference.update"),
    Route(method="POST", path="/suppressions", operation="suppression.create", status=201),
    Route(method="GET", path="/suppressions", operation="suppression.list"),
    Route(method="GET", path="/suppressions/{id}", operation="suppression.get"),
    Route(method="DELETE", path="/suppressions/{id}", operation="suppression.delete"),
)
