"""Holds texts against their client's rules before they are stored. One per process."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from chatserver.chat.errors import MessageRejectedError
from chatserver.infra.expiring import Expiring
from chatserver.moderation import policies
from chatserver.moderation.policies import Rule, Verdict

# How long another node may not know of a change.
FRESH_S: Final = 5.0
REMEMBERED: Final = 10_000

log = structlog.get_logger()


class Rules(Protocol):
    """Where the rules are."""

    async def enabled(self, client_id: UUID) -> Sequence[Any]:
        """Give the rules that are on, the oldest first."""
        ...

    async def flag(
        self, client_id: UUID, room_id: UUID, message_id: UUID, rules: Sequence[UUID]
    ) -> None:
        """Flag a message in the name of rules; each does it once."""
        ...


class Screen:
    """Remembers each client's rules, ready to be used, for a few seconds."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known: Expiring[UUID, tuple[Rule, ...]] = Expiring(size=REMEMBERED, ttl_s=FRESH_S)
        self._loading: dict[UUID, asyncio.Task[tuple[Rule, ...]]] = {}
        # Made ready once: two thousand words take a while, and seldom change.
        self._ready: dict[UUID, tuple[tuple[Any, ...], Rule]] = {}

    async def check(self, client_id: UUID, room_id: UUID, content: str) -> Verdict:
        """Give the text to store, and the rules that flag it.

        Raises:
            MessageRejectedError: a rule refuses it.
            UnavailableError: the rules can't be read: nothing goes unscreened.
        """
        rules = self._known.get(client_id)
        if rules is None:
            rules = await self._loaded(client_id)
        if not rules or not content:
            return Verdict(content)
        verdict = policies.judge(content, room_id, rules)
        if verdict.rejected_by is not None:
            raise MessageRejectedError(
                issues=({"field": "content", "issue": "breaks a rule"},),
                rule_id=str(verdict.rejected_by),
            )
        return verdict

    async def flag(
        self, client_id: UUID, room_id: UUID, message_id: UUID, rules: Sequence[UUID]
    ) -> None:
        """Flag a message that is about to be stored: no flag is lost if this process dies.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        await self._rules.flag(client_id, room_id, message_id, rules)

    def forget(self) -> None:
        """Read rules again: some client's have changed, which is seldom."""
        self._known.drop(lambda _: True)

    async def _loaded(self, client_id: UUID) -> tuple[Rule, ...]:
        """Read a client's rules once for all who ask meanwhile: they go on in their order."""
        loading = self._loading.get(client_id)
        if loading is None:
            loading = asyncio.get_running_loop().create_task(self._load(client_id))
            self._loading[client_id] = loading
            loading.add_done_callback(lambda _: self._loading.pop(client_id, None))
        return await asyncio.shield(loading)

    async def _load(self, client_id: UUID) -> tuple[Rule, ...]:
        drops = self._known.drops
        rows = await self._rules.enabled(client_id)
        rules = tuple(rule for row in rows if (rule := self._made_ready(row)) is not None)
        self._known.put(client_id, rules, drops=drops)
        return rules

    def _made_ready(self, row: Any) -> Rule | None:  # noqa: ANN401 - a row
        said = (row["kind"], tuple(row["terms"]), row["action"], tuple(row["room_ids"] or ()))
        known = self._ready.get(row["id"])
        if known is not None and known[0] == said:
            return known[1]
        try:
            find = policies.compile_rule(row["kind"], row["terms"])
        except ValueError as error:
            # It was good when it was made: another version of the library thinks otherwise.
            log.error("moderation_rule_unusable", rule_id=str(row["id"]), error=str(error))  # noqa: TRY400
            return None
        rooms = row["room_ids"]
        rule = Rule(row["id"], row["action"], None if rooms is None else frozenset(rooms), find)
        if len(self._ready) >= REMEMBERED:
            self._ready.clear()
        self._ready[row["id"]] = (said, rule)
        return rule
