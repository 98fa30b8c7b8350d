"""How moderation is built. Its screen stands before the conversation, its flags behind it."""

from collections.abc import Awaitable, Callable

from chatserver.chat.schemas import MessageRef
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.moderation.repository import ModerationRepository, RuleLookup
from chatserver.moderation.screening import Screen
from chatserver.moderation.service import FlagService, Messages, Rooms, RuleService
from chatserver.wiring.core import Core


class Moderation:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.screen = Screen(RuleLookup(core.database))
        self.open_rules = core.open(self._rules)

    def flags(
        self,
        *,
        rooms: Open[Rooms],
        messages: Messages,
        delete: Callable[[Principal, MessageRef], Awaitable[object]],
    ) -> FlagService:
        """Build what stands on the conversation."""
        return FlagService(
            open_flags=self._core.open(lambda work: ModerationRepository(work.session)),
            open_rooms=rooms,
            messages=messages,
            delete=delete,
        )

    def _rules(self, work: UnitOfWork) -> RuleService:
        return RuleService(
            rules=ModerationRepository(work.session),
            recorder=work,
            changed=self.screen.forget,
        )
