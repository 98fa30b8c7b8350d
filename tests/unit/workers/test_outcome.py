from uuid import UUID

import pytest

from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Claim
from chatserver.kernel.errors import (
    DomainError,
    IdempotencyRunningError,
    RateLimitedError,
    RouteNotFoundError,
    UnavailableError,
)
from workers.outcome import LONGEST_ERROR, LONGEST_PAUSE_S, after, describe, pause_s

KIND = JobKind("test.work", "sweep", max_attempts=3, retry_s=5.0)


def claimed(attempt: int) -> Claim:
    return Claim(
        id=UUID(int=1),
        kind=KIND.name,
        client_id=None,
        payload={},
        attempt=attempt,
        fence=attempt,
        lease_s=30.0,
    )


class TestAfter:
    @pytest.mark.parametrize("attempt", [1, 2])
    def test_an_unexpected_error_is_tried_again_later(self, attempt: int) -> None:
        outcome = after(KIND, claimed(attempt), ValueError("no such luck"))
        assert outcome.state == "queued"
        assert outcome.error == "ValueError: no such luck"
        assert outcome.delay_s >= 5.0 * 2 ** (attempt - 1)

    @pytest.mark.parametrize("attempt", [3, 4])
    def test_the_last_attempt_ends_it(self, attempt: int) -> None:
        outcome = after(KIND, claimed(attempt), ValueError("no such luck"))
        assert (outcome.state, outcome.delay_s) == ("failed", 0.0)

    def test_a_refusal_is_not_repeated(self) -> None:
        outcome = after(KIND, claimed(1), RouteNotFoundError())
        assert outcome.state == "failed"
        assert outcome.error is not None
        assert "[route.not_found]" in outcome.error

    @pytest.mark.parametrize(
        "refusal", [UnavailableError(), RateLimitedError(), IdempotencyRunningError()]
    )
    def test_a_refusal_that_passes_is_repeated(self, refusal: DomainError) -> None:
        assert after(KIND, claimed(1), refusal).state == "queued"
        assert after(KIND, claimed(3), refusal).state == "failed"


class TestPause:
    def test_it_doubles(self) -> None:
        assert [pause_s(KIND, attempt, spread=0.0) for attempt in (1, 2, 3)] == [5.0, 10.0, 20.0]

    def test_the_spread_adds_up_to_a_quarter(self) -> None:
        assert pause_s(KIND, 1, spread=1.0) == 6.25

    def test_it_never_grows_beyond_all_reason(self) -> None:
        assert pause_s(KIND, 10_000, spread=0.0) == LONGEST_PAUSE_S


class TestDescribe:
    def test_it_hides_secrets(self) -> None:
        text = describe(OSError("can't reach postgresql://app:hunter2@db/chat"))
        assert "hunter2" not in text
        assert "db/chat" in text

    def test_it_holds_only_what_postgresql_can_keep(self) -> None:
        assert describe(ValueError("a\0b\ud800")) == "ValueError: ab?"

    def test_it_is_cut(self) -> None:
        assert len(describe(ValueError("x" * 100_000))) == LONGEST_ERROR
