"""What fails is seen in what health says, in metrics and in the log, once each."""

from typing import Any, cast

from structlog.testing import capture_logs

from chatserver.transport.health import DatabaseProbe, Health, Reached, State


class Part:
    def __init__(self, name: str) -> None:
        self.name = name
        self.now = State.READY
        self.last = Reached(1.0)

    async def state(self) -> State:
        return self.now


async def test_a_part_that_changes_is_logged_and_remembered() -> None:
    database, bus = Part("database"), Part("bus")
    health = Health(cast("DatabaseProbe", database), [bus])

    async def look() -> list[tuple[Any, ...]]:
        with capture_logs() as lines:
            await health.look()
        return [(line["event"], line["part"], line.get("state")) for line in lines]

    assert await look() == []
    bus.now = State.DEGRADED
    assert await look() == [("part_not_ready", "bus", "degraded")]
    assert await look() == []
    assert health.last == {"database": State.READY, "bus": State.DEGRADED}
    database.now, database.last = State.UNREADY, Reached(None)
    assert await look() == [("part_not_ready", "database", "unready")]
    assert health.ping_s is None
    bus.now = State.READY
    assert await look() == [("part_ready_again", "bus", None)]
