"""What answers cost a client."""

from datetime import date, timedelta
from typing import Final

from chatserver.assistant.generation.repository import GenerationRepository
from chatserver.assistant.generation.schemas import AiUsageOut, AiUsageRow, AskAiUsage
from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal

LONGEST: Final = timedelta(days=366)
MONTH: Final = timedelta(days=30)


class UsageReader:
    """Usage of one transaction."""

    def __init__(self, answers: GenerationRepository, clock: Clock) -> None:
        self._answers = answers
        self._clock = clock

    async def read(self, principal: Principal, command: AskAiUsage) -> AiUsageOut:
        """Give rows of `first` to `last` (UTC days); without them the last 30 days."""
        last = _day(command.last, "last") or self._clock().date()
        first = _day(command.first, "first") or last - MONTH
        if first > last or last - first > LONGEST:
            raise PayloadInvalidError.of("first", "must be at most a year before last")
        rows = await self._answers.usage(
            principal.client_id, first=first, last=last, bot_id=command.bot_id
        )
        items = [
            AiUsageRow(
                bot_id=row["bot_id"],
                day=row["day"].isoformat(),
                model=row["model"],
                answers=row["answers"],
                prompt_tokens=row["prompt_tokens"],
                completion_tokens=row["completion_tokens"],
                cost=row["cost_micros"] / 1_000_000,
            )
            for row in rows
        ]
        return AiUsageOut(first=first.isoformat(), last=last.isoformat(), items=items)


def _day(text: str | None, field: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise PayloadInvalidError.of(field, "must be a day, like 2026-11-20") from None
