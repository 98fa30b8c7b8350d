from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.rooms.errors import RoleMissingError
from chatserver.rooms.policies import (
    RANK,
    Ageing,
    age,
    is_public,
    joins_are_logged,
    lifetime,
    require_role,
)

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULTS: dict[str, float | None] = {"support": 7 * 86_400, "assistant": None}


class TestRequireRole:
    @pytest.mark.parametrize("role", RANK)
    @pytest.mark.parametrize("needed", RANK)
    def test_a_role_suffices_when_it_is_no_lower(self, role: str, needed: str) -> None:
        if RANK[role] >= RANK[needed]:
            require_role(role, needed)
            return
        with pytest.raises(RoleMissingError) as caught:
            require_role(role, needed)
        assert caught.value.details == {"role": needed}

    def test_the_application_itself_may_everything(self) -> None:
        require_role(None, "owner")


class TestJoinsAreLogged:
    @pytest.mark.parametrize(
        ("room_type", "members", "logged"),
        [
            ("group", 1, True),
            ("group", 1000, True),
            ("group", 1001, False),
            ("direct", 2, True),
            ("channel", 1, False),
        ],
    )
    def test_channels_and_large_rooms_only_count(
        self, room_type: str, members: int, logged: bool
    ) -> None:
        assert joins_are_logged(room_type, members) is logged

    def test_only_a_channel_is_public(self) -> None:
        public = [each for each in ("direct", "group", "support", "channel") if is_public(each)]
        assert public == ["channel"]


class TestLifetime:
    @pytest.mark.parametrize(
        ("room_type", "overrides", "expected"),
        [
            ("support", {}, timedelta(days=7)),
            ("support", {"group": 60}, timedelta(days=7)),
            ("support", {"support": 60}, timedelta(minutes=1)),
            ("support", {"support": None}, None),
            ("assistant", {}, None),
            ("assistant", {"assistant": 3600}, timedelta(hours=1)),
        ],
    )
    def test_the_clients_own_rule_goes_before_the_servers(
        self, room_type: str, overrides: dict[str, object], expected: timedelta | None
    ) -> None:
        assert lifetime(room_type, overrides, DEFAULTS) == expected


class TestAge:
    @pytest.mark.parametrize(
        ("silent", "life", "warned", "expected"),
        [
            (10 * DAY, None, False, Ageing()),
            # A week's life: announced 16.8 hours before its end.
            (DAY, 7 * DAY, False, Ageing(next_check=START + 7 * DAY - 0.7 * DAY)),
            (
                6.5 * DAY,
                7 * DAY,
                False,
                Ageing(warn=True, next_check=START + 7 * DAY, ends_at=START + 7 * DAY),
            ),
            (6.5 * DAY, 7 * DAY, True, Ageing(next_check=START + 7 * DAY, ends_at=START + 7 * DAY)),
            (7 * DAY, 7 * DAY, False, Ageing(sleep=True)),
            (8 * DAY, 7 * DAY, True, Ageing(sleep=True)),
            # A long life is announced one day before, not eighteen.
            (178.9 * DAY, 180 * DAY, False, Ageing(next_check=START + 179 * DAY)),
            (
                179 * DAY,
                180 * DAY,
                False,
                Ageing(warn=True, next_check=START + 180 * DAY, ends_at=START + 180 * DAY),
            ),
            # A short one is not announced at all.
            (
                timedelta(minutes=58),
                timedelta(minutes=59),
                False,
                Ageing(next_check=START + timedelta(minutes=59)),
            ),
            (
                timedelta(minutes=54),
                timedelta(hours=1),
                False,
                Ageing(
                    warn=True,
                    next_check=START + timedelta(hours=1),
                    ends_at=START + timedelta(hours=1),
                ),
            ),
        ],
    )
    def test_what_is_done_follows_from_how_long_it_was_silent(
        self, silent: timedelta, life: timedelta | None, warned: bool, expected: Ageing
    ) -> None:
        assert age(START + silent, START, life, warned=warned) == expected

    @given(
        st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=3650)),
        st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=4000)),
        st.booleans(),
    )
    def test_a_silent_room_falls_asleep_exactly_when_its_life_is_over(
        self, life: timedelta, silent: timedelta, warned: bool
    ) -> None:
        now, end = START + silent, START + life
        decided = age(now, START, life, warned=warned)
        assert decided.sleep is (now >= end)
        if not decided.sleep:
            # It is looked at again, later than now and not after its end.
            assert decided.next_check is not None
            assert now < decided.next_check <= end

    @given(st.timedeltas(min_value=timedelta(hours=1), max_value=timedelta(days=3650)))
    def test_looking_again_when_told_announces_once_and_then_ends(self, life: timedelta) -> None:
        steps = []
        now, warned = START, False
        for _ in range(5):
            decided = age(now, START, life, warned=warned)
            steps.append("sleep" if decided.sleep else "warn" if decided.warn else "wait")
            if decided.sleep:
                break
            warned = decided.ends_at is not None
            assert decided.next_check is not None
            now = decided.next_check
        assert steps == ["wait", "warn", "sleep"]
