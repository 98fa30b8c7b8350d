"""When a delivery is tried again, and how a target's health changes: tables."""

from uuid import UUID

import pytest

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import (
    DEADLINE_S,
    SCHEDULE,
    TOLD_EVERY_S,
    Health,
    Verdict,
    after_failure,
    after_success,
    judge,
)

NOBODY = UUID(int=0)
DAY = 86_400.0


def claim(*, attempts: int = 0, left_s: float = DEADLINE_S, is_probe: bool = False) -> Claim:
    return Claim(
        id=NOBODY,
        client_id=NOBODY,
        target_id=NOBODY,
        source_id=NOBODY,
        source_seq=1,
        generation=1,
        fence=1,
        attempts=attempts,
        tries=attempts + 1,
        age_s=0,
        left_s=left_s,
        concurrency=4,
        is_plain=True,
        is_probe=is_probe,
    )


class TestJudge:
    def test_there_are_13_tries_in_75_hours(self) -> None:
        assert len(SCHEDULE) == 13
        assert sum(SCHEDULE) / 3600 == pytest.approx(75.7, abs=0.05)

    @pytest.mark.parametrize("done", range(13))
    def test_a_failure_waits_as_the_schedule_says_until_there_is_none(self, done: int) -> None:
        for spread, factor in ((0.0, 0.8), (0.5, 1.0), (1.0, 1.2)):
            verdict = judge(claim(attempts=done), Sent(outcome="retryable"), spread=spread)
            if done == 12:
                assert verdict == Verdict("failed", "exhausted")
            else:
                assert verdict.state == "retry_wait"
                assert verdict.delay_s == pytest.approx(SCHEDULE[done + 1] * factor)
                assert verdict.counts

    def test_a_wrong_setup_is_tried_six_times(self) -> None:
        sent = Sent(outcome="configuration", error="status_404", status=404)
        states = [judge(claim(attempts=done), sent, spread=0.5).state for done in range(6)]
        assert states == ["retry_wait"] * 5 + ["failed"]

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [(1.0, 5.0), (60.0, 60.0), (7 * 3600.0, 6 * 3600.0)],
        ids=["less than the schedule", "more", "too much"],
    )
    def test_retry_after_counts_between_the_schedule_and_six_hours(
        self, asked: float, expected: float
    ) -> None:
        sent = Sent(outcome="throttled", retry_after_s=asked)
        assert judge(claim(), sent, spread=0.5).delay_s == expected

    def test_nothing_is_tried_past_its_deadline(self) -> None:
        verdict = judge(claim(left_s=4.9), Sent(outcome="retryable"), spread=0.5)
        assert verdict == Verdict("expired", "deadline")

    def test_a_probe_uses_up_no_try_however_often(self) -> None:
        verdict = judge(claim(attempts=12, is_probe=True), Sent(outcome="retryable"), spread=0.5)
        assert (verdict.state, verdict.counts) == ("retry_wait", False)

    @pytest.mark.parametrize("outcome", ["gone", "rejected"])
    def test_who_says_never_is_believed(self, outcome: str) -> None:
        verdict = judge(claim(), Sent(outcome=outcome, error="why"), spread=0.5)
        assert verdict == Verdict("failed", "why")


class TestHealth:
    def failing(self, health: Health, times: int, **sent: object) -> list[str]:
        states = []
        for _ in range(times):
            outcome = Sent(**({"outcome": "retryable"} | sent))  # type: ignore[arg-type]
            change = after_failure(health, outcome, is_probe=True, is_flapping=False, spread=0.5)
            states.append(change.state)
            health = Health(
                state=change.state,
                failures=change.failures,
                opened=change.opened,
                is_proven=health.is_proven,
            )
        return states

    def test_the_ladder_of_one_that_worked_before(self) -> None:
        assert self.failing(Health(), 6) == [
            *("active", "active", "degraded", "degraded", "paused", "paused")
        ]

    def test_one_that_never_worked_is_left_alone_sooner(self) -> None:
        assert self.failing(Health(is_proven=False), 3) == ["active", "active", "paused"]

    def test_flapping_pauses_at_once(self) -> None:
        bad = Sent(outcome="retryable")
        change = after_failure(Health(), bad, is_probe=True, is_flapping=True, spread=0.5)
        assert (change.state, change.open_s, change.told) == ("paused", 30.0, ("paused",))

    def test_pauses_double_up_to_15_minutes(self) -> None:
        waits = [
            after_failure(
                Health(state="paused", failures=9, opened=opened),
                Sent(outcome="retryable"),
                is_probe=True,
                is_flapping=False,
                spread=0.5,
            ).open_s
            for opened in range(7)
        ]
        assert waits == [30, 60, 120, 240, 480, 900, 900]

    def test_what_was_on_its_way_when_a_pause_began_prolongs_it_not(self) -> None:
        paused = Health(state="paused", failures=5, opened=1)
        bad = Sent(outcome="retryable")
        change = after_failure(paused, bad, is_probe=False, is_flapping=False, spread=0.5)
        assert (change.state, change.opened, change.open_s) == ("paused", 1, None)

    def test_a_drain_goes_on_through_successes_and_single_failures(self) -> None:
        draining = Health(is_draining=True)
        assert after_success(draining).is_draining
        bad = Sent(outcome="retryable")
        change = after_failure(draining, bad, is_probe=False, is_flapping=False, spread=0.5)
        assert change.is_draining

    def test_a_throttled_target_rests_as_long_as_it_asks(self) -> None:
        for asked, rest in ((None, 30.0), (90.0, 90.0), (10**6, 6 * 3600.0)):
            sent = Sent(outcome="throttled", retry_after_s=asked)
            change = after_failure(Health(), sent, is_probe=True, is_flapping=False, spread=0.5)
            assert (change.state, change.open_s) == ("active", rest)

    def test_gone_disables(self) -> None:
        sent = Sent(outcome="gone", error="gone", status=410)
        change = after_failure(Health(), sent, is_probe=True, is_flapping=False, spread=0.5)
        assert (change.state, change.reason, change.told) == ("disabled", "gone", ("disabled",))

    def test_five_days_disable_after_a_warning_a_day_before(self) -> None:
        bad = Sent(outcome="retryable")
        health = Health(state="paused", failures=99, failing_s=4.1 * DAY)
        change = after_failure(health, bad, is_probe=True, is_flapping=False, spread=0.5)
        assert (change.state, change.told, change.warned) == ("paused", ("disabling",), True)
        warned = Health(state="paused", failures=99, failing_s=4.2 * DAY, is_warned=True)
        assert after_failure(warned, bad, is_probe=True, is_flapping=False, spread=0.5).told == ()
        late = Health(state="paused", failures=99, failing_s=5.1 * DAY, is_warned=True)
        change = after_failure(late, bad, is_probe=True, is_flapping=False, spread=0.5)
        assert (change.state, change.told) == ("disabled", ("disabled",))

    def test_the_same_troubles_are_told_once_an_hour(self) -> None:
        bad = Sent(outcome="retryable")
        lately = Health(failures=2, told_s=60.0)
        assert after_failure(lately, bad, is_probe=True, is_flapping=False, spread=0.5).told == ()
        before = Health(failures=2, told_s=TOLD_EVERY_S + 1)
        assert after_failure(before, bad, is_probe=True, is_flapping=False, spread=0.5).told == (
            "degraded",
        )
        worse = Health(state="degraded", failures=4, told_s=60.0)
        assert after_failure(worse, bad, is_probe=True, is_flapping=False, spread=0.5).told == (
            "paused",
        )

    def test_a_success_ends_a_pause_and_drains(self) -> None:
        change = after_success(Health(state="paused", failures=9, since_s=50.0, told_s=50.0))
        assert (change.state, change.failures, change.is_draining) == ("active", 0, True)
        assert change.told == ("resumed",)
        untold = after_success(Health(state="paused", failures=9, since_s=50.0, told_s=900.0))
        assert untold.told == ()

    def test_nothing_brings_back_what_was_disabled_or_deleted(self) -> None:
        for state in ("disabled", "deleted"):
            assert after_success(Health(state=state)).state == state
            bad = Sent(outcome="retryable")
            change = after_failure(
                Health(state=state), bad, is_probe=True, is_flapping=True, spread=0.5
            )
            assert (change.state, change.told) == (state, ())
