from chatserver.infra.job_kinds import KINDS
from workers.schedule import PERIODIC, Timetable


def test_everything_is_due_at_first_and_then_each_in_its_own_step() -> None:
    timetable = Timetable([5.0, 15.0], now=100.0)
    assert timetable.due(100.0) == [0, 1]
    assert timetable.due(100.0) == []
    assert timetable.due(105.0) == [0]
    assert timetable.due(110.0) == [0]
    assert timetable.due(115.0) == [0, 1]


def test_a_late_look_does_not_shift_the_times_after_it() -> None:
    timetable = Timetable([5.0], now=0.0)
    timetable.due(0.0)
    assert timetable.due(7.5) == [0]
    assert timetable.wait_s(7.5) == 2.5
    assert timetable.due(9.9) == []
    assert timetable.due(10.0) == [0]


def test_missed_times_are_not_made_up_for() -> None:
    timetable = Timetable([5.0], now=0.0)
    timetable.due(0.0)
    assert timetable.due(3600.0) == [0]
    assert timetable.due(3600.0) == []
    assert timetable.wait_s(3600.0) == 5.0


def test_the_wait_ends_when_the_next_is_due_and_is_never_negative() -> None:
    timetable = Timetable([5.0, 2.0], now=0.0)
    assert timetable.wait_s(0.0) == 0.0
    timetable.due(0.0)
    assert timetable.wait_s(0.5) == 1.5
    assert timetable.wait_s(60.0) == 0.0


def test_only_known_kinds_are_planned_and_each_by_one_entry() -> None:
    names = [periodic.kind.name for periodic in PERIODIC]
    assert set(names) <= KINDS.keys()
    assert len(names) == len(set(names))
