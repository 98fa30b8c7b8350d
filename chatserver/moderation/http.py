"""REST for moderation: a client's rules, and routes to the commands about flags."""

from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.moderation.errors import RuleNotFoundError, TooManyRulesError
from chatserver.moderation.schemas import (
    CreateRule,
    ListRules,
    RuleDeleted,
    RuleOut,
    RuleRef,
    Tried,
    TryRules,
    UpdateRule,
)
from chatserver.moderation.service import RuleService
from chatserver.transport.registry import MASTER, Route, operation


class RulesHttp:
    def __init__(self, rules: Open[RuleService]) -> None:
        self._rules = rules

    @operation(
        "moderation.rule_create", CreateRule, RuleOut, callers=MASTER, errors=(TooManyRulesError,)
    )
    async def create(self, principal: Principal, request: CreateRule) -> RuleOut:
        """Make a rule for texts. It holds for what is sent from now on, everywhere within 5 s."""
        async with self._rules() as rules:
            return await rules.create(principal, request)

    @operation("moderation.rule_list", ListRules, Page[RuleOut], callers=MASTER)
    async def list(self, principal: Principal, request: ListRules) -> Page[RuleOut]:
        """List the rules, the oldest first: the order in which they are applied."""
        async with self._rules() as rules:
            return await rules.list(principal, request)

    @operation(
        "moderation.rule_update", UpdateRule, RuleOut, callers=MASTER, errors=(RuleNotFoundError,)
    )
    async def update(self, principal: Principal, request: UpdateRule) -> RuleOut:
        """Change a rule, or turn it on and off."""
        async with self._rules() as rules:
            return await rules.update(principal, request)

    @operation(
        "moderation.rule_delete", RuleRef, RuleDeleted, callers=MASTER, errors=(RuleNotFoundError,)
    )
    async def delete(self, principal: Principal, request: RuleRef) -> RuleDeleted:
        """Delete a rule. What it flagged stays flagged."""
        async with self._rules() as rules:
            return await rules.delete(principal, request)

    @operation("moderation.try", TryRules, Tried, callers=MASTER)
    async def attempt(self, principal: Principal, request: TryRules) -> Tried:
        """Hold a text against the rules. Nothing is stored or sent."""
        async with self._rules() as rules:
            return await rules.attempt(principal, request)


_RULES = "/moderation/rules"
RULE_ROUTES: Final = (
    Route(method="POST", path=_RULES, operation="moderation.rule_create", status=201),
    Route(method="GET", path=_RULES, operation="moderation.rule_list"),
    Route(method="PATCH", path=_RULES + "/{rule_id}", operation="moderation.rule_update"),
    Route(method="DELETE", path=_RULES + "/{rule_id}", operation="moderation.rule_delete"),
    Route(method="POST", path="/moderation/try", operation="moderation.try"),
)
FLAG_ROUTES: Final = (
    Route(method="POST", path="/messages/{message_id}/flag", operation="message.flag"),
    Route(method="GET", path="/moderation/flags", operation="flag.list"),
    Route(method="POST", path="/moderation/flags/{flag_id}/resolve", operation="flag.resolve"),
)
