"""The checker finds what it is there for."""

from typing import Any

import pytest

from tests.chaos.checker import Judge, Truth, Verdict
from tests.chaos.soak import MB, Line

ROOM = "room"
CANARY = "mine"


def truth(count: int = 4) -> Truth:
    return Truth(
        log={ROOM: [(seq, f"fact-{seq}", "message.created") for seq in range(1, count + 1)]},
        messages={(ROOM, f"m{seq}"): [seq] for seq in range(1, count + 1)},
        members={ROOM: {"alice"}},
        last_seqs={ROOM: count},
    )


def fact(seq: int, op: str = "applied", **more: Any) -> dict[str, Any]:
    return {
        "op": op,
        "client": "alice",
        "room": ROOM,
        "seq": seq,
        "id": f"fact-{seq}",
        "content": f"{CANARY} {seq}",
        "connection": 1,
        **more,
    }


def judged(*history: dict[str, Any], rows: Truth | None = None) -> Verdict:
    return Judge(rows or truth(), {"alice": CANARY}).judge(history)


def test_the_whole_log_in_order_is_no_fault() -> None:
    sent = {"op": "send", "client": "alice", "room": ROOM, "cmid": "m2", "status": "ok", "seq": 2}
    verdict = judged(*(fact(seq) for seq in range(1, 5)), sent)
    assert (verdict.faults, verdict.applied, verdict.acked) == ([], 4, 1)


def test_a_reload_stands_for_what_was_before() -> None:
    reset = {"op": "reset", "client": "alice", "room": ROOM, "seq": 3, "epoch": "1.1"}
    assert judged(fact(1), reset, fact(4)).faults == []


def test_a_stock_client_may_begin_anywhere_and_end_anywhere() -> None:
    assert judged(*(fact(seq, "heard") for seq in (2, 3))).faults == []


@pytest.mark.parametrize(
    ("seqs", "counts"),
    [
        pytest.param([1, 2, 4], (1, 0, 0), id="a hole"),
        pytest.param([1, 2, 3], (1, 0, 0), id="a lost last fact"),
        pytest.param([1, 2, 2, 3, 4], (0, 1, 0), id="a repeat"),
        pytest.param([1, 3, 2, 4], (0, 0, 1), id="another order"),
    ],
)
def test_what_a_reference_client_shows_is_compared_with_the_log(
    seqs: list[int], counts: tuple[int, int, int]
) -> None:
    verdict = judged(*(fact(seq) for seq in seqs))
    assert (verdict.lost, verdict.repeated, verdict.disordered) == counts
    assert verdict.faults[0].startswith("I3")


@pytest.mark.parametrize("seqs", [[1, 3], [1, 1, 2], [2, 1]])
def test_a_line_of_a_stock_client_is_a_piece_of_the_log(seqs: list[int]) -> None:
    verdict = judged(*(fact(seq, "heard") for seq in seqs))
    assert verdict.faults[0].startswith("I3")


def test_another_fact_under_a_known_seq_is_found() -> None:
    other = fact(2, id="another")
    assert judged(fact(1), other, fact(3), fact(4)).faults


@pytest.mark.parametrize("seq", [3, None])
def test_an_acknowledgement_must_be_stored(seq: int | None) -> None:
    cmid = "m2" if seq else "never"
    sent = {"op": "send", "client": "alice", "room": ROOM, "cmid": cmid, "status": "ok", "seq": seq}
    assert judged(sent).faults[0].startswith("I1")


def test_one_identity_has_one_seq() -> None:
    rows = truth()
    rows.messages[ROOM, "m1"] = [1, 2]
    assert judged(rows=rows).faults[0].startswith("I2")


def test_a_log_with_a_hole_is_a_fault_of_its_own() -> None:
    rows = truth()
    del rows.log[ROOM][1]
    assert judged(rows=rows).faults[0].startswith("I3")


def test_a_text_that_was_changed_is_shown_as_it_is_now() -> None:
    rows = truth(2)
    rows.texts["m"] = f"{CANARY}, changed"
    was = fact(1, message="m")
    assert judged(was, fact(2), rows=rows).outdated == 1
    now = fact(2, message="m", content=f"{CANARY}, changed")
    assert judged(was, now, rows=rows).faults == []


def test_what_belongs_to_another_tenant_is_found() -> None:
    assert judged(fact(1, content="theirs 1"), fact(2), fact(3), fact(4)).faults[0].startswith("I4")


def test_a_leak_is_seen_in_the_slope_and_a_cache_that_fills_is_not() -> None:
    leaks = Line("a", [(at, 100 * MB + int(at * 20_000)) for at in range(0, 1800, 5)])
    fills = Line("b", [(at, 100 * MB + min(at, 300) * 100_000) for at in range(0, 1800, 5)])
    assert leaks.slope_mb_per_h() > 60
    assert not leaks.is_flat()
    assert abs(fills.slope_mb_per_h()) < 1
    assert fills.is_flat()
