"""How often the index is looked at, for words of different frequency."""

from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Caller, Principal
from chatserver.search.policies import NAMED_ROOMS
from chatserver.search.repository import Found, Look
from chatserver.search.schemas import SearchMessages
from chatserver.search.service import FEW, SearchService

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Index:
    """A word that is in so many messages a day, a tenth of which the caller may read."""

    def __init__(self, a_day: int, days: int = 60) -> None:
        self.a_day, self.days = a_day, days
        self.asked: list[int] = []

    async def language(self, _: UUID) -> tuple[str, datetime]:
        return "simple", NOW

    async def query(self, *_: object) -> str:
        return "'word'"

    async def rooms_of(self, _: UUID, limit: int) -> list[UUID]:
        return [uuid7() for _ in range(min(limit, NAMED_ROOMS + 1))]

    async def look(self, look: Look, *, most: int, wanted: int) -> tuple[int, list[Found]]:
        self.asked.append(most)
        asked = "".join(look.keys)
        days = asked.count("\x01d") + 32 * asked.count("\x01m") or self.days
        looked_at = min(most, self.a_day * min(days, self.days))
        found = [
            Found(uuid7(), NOW - timedelta(seconds=number), 1.0)
            for number in range(min(wanted, looked_at // 10))
        ]
        return looked_at, found

    async def show(self, ids: Sequence[UUID], **_: object) -> dict[UUID, Any]:
        return {}


@asynccontextmanager
async def no_rooms() -> Any:
    yield None


@pytest.mark.parametrize(("a_day", "looks_for_few"), [(0, 1), (1, 1), (40, 1), (700, 0)])
async def test_only_what_may_be_a_rare_word_is_looked_for_in_all_of_time(
    a_day: int, looks_for_few: int
) -> None:
    index = Index(a_day)
    service: Any = SearchService
    made = service(repository=index, rooms=no_rooms, seal=None)
    caller = Principal(caller=Caller.USER, client_id=uuid7(), user_id=uuid7())
    await made._newest(caller, SearchMessages(q="word"), "'word'", (NOW, uuid7()))
    assert index.asked.count(FEW + 1) == looks_for_few
