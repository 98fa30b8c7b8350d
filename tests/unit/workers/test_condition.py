import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from chatserver.kernel.errors import UnavailableError
from workers.condition import Condition


def events(lines: list[EventDict]) -> list[str]:
    return [line["event"] for line in lines]


def test_each_change_is_told_once() -> None:
    condition = Condition("redis")
    with capture_logs() as lines:
        condition.works()
        for _ in range(3):
            condition.fails(ConnectionRefusedError())
        for _ in range(3):
            condition.works()
        condition.fails(ConnectionRefusedError())
    assert events(lines) == ["away", "back_again", "away"]


def test_a_bug_that_follows_an_outage_is_not_hidden_by_it() -> None:
    condition = Condition("redis")
    with capture_logs() as lines:
        condition.fails(UnavailableError())
        condition.fails(KeyError("bug"))
        condition.fails(KeyError("bug"))
    assert events(lines) == ["away", "broken"]
    assert isinstance(lines[1]["exc_info"], KeyError)


@pytest.mark.parametrize("cause", [ConnectionResetError(), TimeoutError()])
def test_an_outage_names_what_was_behind_it(cause: Exception) -> None:
    error = UnavailableError()
    error.__cause__ = cause
    with capture_logs() as lines:
        Condition("postgresql").fails(error)
    assert lines[0]["error"] == type(cause).__name__
