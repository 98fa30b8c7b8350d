"""What the tries at a person's devices come to, and who is left in peace for how long."""

from typing import Any
from uuid import UUID

import pytest

from chatserver.deliveries.models import Claim, Sent
from chatserver.infra.web_push import Kind, PushOutcome
from chatserver.kernel.ids import uuid7
from chatserver.notifications.mails.policies import cut_off
from chatserver.notifications.push.policies import Part, Rests, message_of, summed_up
from chatserver.notifications.requests.policies import judge

ID = UUID(int=7 << 80)


def part(kind: Kind, *, after: float | None = None, tried: bool = True) -> Part:
    outcome = PushOutcome(
        kind=kind, error=None if kind == "accepted" else kind, retry_after_s=after
    )
    return Part(device_id=uuid7(), outcome=outcome, is_tried=tried)


def claim(*, left_s: float = 86_400.0, attempts: int = 0) -> Claim:
    return Claim(
        id=ID,
        client_id=ID,
        target_id=ID,
        source_id=ID,
        source_seq=None,
        generation=1,
        fence=1,
        attempts=attempts,
        tries=1,
        age_s=0.0,
        left_s=left_s,
        concurrency=1,
        is_plain=True,
        is_probe=False,
    )


@pytest.mark.parametrize(
    ("parts", "partly", "outcome", "partly_done"),
    [
        ([], False, "unreachable", False),
        ([], True, "accepted", False),
        ([part("accepted")], False, "accepted", False),
        ([part("accepted"), part("gone"), part("rejected")], False, "accepted", False),
        ([part("gone")], False, "bounced", False),
        ([part("gone"), part("rejected")], False, "rejected", False),
        ([part("accepted"), part("retryable")], False, "retryable", True),
        ([part("retryable")], True, "retryable", True),
        ([part("retryable"), part("gone")], False, "retryable", False),
        ([part("throttled", tried=False)], False, "waiting", False),
        ([part("throttled", tried=False), part("retryable")], False, "retryable", False),
        ([part("throttled", tried=False), part("accepted")], False, "throttled", True),
    ],
)
def test_many_devices_come_to_one_outcome(
    parts: list[Part], *, partly: bool, outcome: str, partly_done: bool
) -> None:
    sent = summed_up(parts, is_partly_done=partly)
    assert (sent.outcome, sent.is_partly_done) == (outcome, partly_done)


def test_the_next_try_comes_as_soon_as_one_device_can_be_tried() -> None:
    parts = [part("throttled", after=600), part("retryable")]
    assert summed_up(parts, is_partly_done=False).retry_after_s is None
    parts = [part("throttled", after=600), part("throttled", after=60)]
    assert summed_up(parts, is_partly_done=False).retry_after_s == 60


def test_what_has_reached_a_device_ends_as_accepted() -> None:
    sent = Sent(outcome="retryable", error="status_500", is_partly_done=True)
    assert judge(claim(attempts=8), sent, spread=0.5).state == "accepted"
    assert judge(claim(left_s=1), sent, spread=0.5).state == "accepted"
    assert judge(claim(), sent, spread=0.5).state == "retry_wait"
    none = Sent(outcome="retryable", error="status_500")
    assert judge(claim(attempts=8), none, spread=0.5).state == "failed"


def test_waiting_uses_up_no_try_and_ends_with_the_deadline() -> None:
    waits = Sent(outcome="waiting", error="push_service_resting", retry_after_s=60)
    verdict = judge(claim(), waits, spread=0.5)
    assert (verdict.state, verdict.counts, verdict.delay_s) == ("retry_wait", False, 60)
    assert judge(claim(left_s=30), waits, spread=0.5).state == "expired"


def test_without_a_device_it_was_not_sent() -> None:
    verdict = judge(claim(), Sent(outcome="unreachable", error="no_address"), spread=0.5)
    assert (verdict.state, verdict.reason) == ("suppressed", "no_address")


def test_a_repeat_takes_the_place_of_the_first_and_a_key_that_of_others() -> None:
    content: dict[str, Any] = {"title": "Hi", "body": None, "data": {}, "collapse_key": None}
    other = UUID(int=8 << 80)

    def topic(delivery_id: UUID, key: str | None) -> str | None:
        said = content | {"collapse_key": key}
        return message_of(delivery_id, said, category=None, priority=1, left_s=0.5).topic

    assert topic(ID, None) == topic(ID, None)
    assert topic(ID, None) != topic(other, None)
    assert topic(ID, "a") == topic(other, "a")
    message = message_of(ID, content, category=None, priority=1, left_s=0.5)
    assert message.payload == b'{"id":"%s","title":"Hi"}' % str(ID).encode()
    assert (message.ttl_s, message.urgency) == (1, "normal")


class TestRests:
    bad = PushOutcome(kind="retryable")

    def test_a_few_failures_change_nothing(self) -> None:
        rests = Rests()
        for _ in range(4):
            rests.heard("a", self.bad, 0)
        assert rests.left_s("a", 0) == 0

    def test_five_in_a_row_mean_a_rest_and_five_more_a_longer_one(self) -> None:
        rests = Rests()
        for _ in range(5):
            rests.heard("a", self.bad, 0)
        assert rests.left_s("a", 0) == 30
        assert rests.left_s("b", 0) == 0
        assert rests.left_s("a", 31) == 0
        for _ in range(5):
            rests.heard("a", self.bad, 31)
        assert rests.left_s("a", 31) == 60

    def test_an_answer_ends_it(self) -> None:
        rests = Rests()
        for _ in range(4):
            rests.heard("a", self.bad, 0)
        rests.heard("a", PushOutcome(kind="accepted"), 0)
        rests.heard("a", self.bad, 0)
        assert rests.left_s("a", 0) == 0

    def test_who_asks_for_it_gets_it_at_once(self) -> None:
        rests = Rests()
        rests.heard("a", PushOutcome(kind="throttled", retry_after_s=300), 0)
        assert rests.left_s("a", 100) == 200
        rests.heard("b", PushOutcome(kind="throttled"), 0)
        assert rests.left_s("b", 0) == 30


class Loaded:
    def __init__(self, priority: int, *, unknowns: int = 0, kind: str = "smtp") -> None:
        self.row = {"priority": priority, "unknowns": unknowns, "provider_kind": kind}


def test_a_mail_that_was_cut_off_is_repeated_once_and_an_offer_never() -> None:
    verdict = cut_off(claim(), Loaded(1))
    assert (verdict.state, verdict.reason, verdict.delay_s) == (
        "retry_wait",
        "unknown_outcome",
        120,
    )
    # An earlier refusal is no reason not to: only what may have arrived twice is given up.
    assert cut_off(claim(attempts=1), Loaded(1)).state == "retry_wait"
    assert cut_off(claim(attempts=1), Loaded(1, unknowns=1)).state == "failed"
    assert cut_off(claim(), Loaded(2)).state == "failed"
    # Who can be asked what became of it is.
    assert cut_off(claim(), Loaded(2, kind="mailgun")).state == "retry_wait"
