from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.kernel.clock import rfc3339, utc_now


class TestRfc3339:
    @pytest.mark.parametrize(
        ("moment", "written"),
        [
            (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000Z"),
            (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "2026-01-02T03:04:05.999Z"),
            (datetime(2026, 1, 2, 3, 4, 5, 1_999, tzinfo=UTC), "2026-01-02T03:04:05.001Z"),
            (
                datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=45))),
                "2025-12-31T19:45:00.000Z",
            ),
        ],
    )
    def test_it_is_utc_with_milliseconds_and_z(self, moment: datetime, written: str) -> None:
        assert rfc3339(moment) == written

    @given(
        st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)),  # noqa: DTZ001 - hypothesis adds the zone
        st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)),  # noqa: DTZ001
    )
    def test_written_times_sort_as_the_moments_do(self, one: datetime, other: datetime) -> None:
        first, second = sorted((one.replace(tzinfo=UTC), other.replace(tzinfo=UTC)))
        assert rfc3339(first) <= rfc3339(second)
        assert first - datetime.fromisoformat(rfc3339(first)) < timedelta(milliseconds=1)

    def test_now_is_aware_and_in_utc(self) -> None:
        assert utc_now().utcoffset() == timedelta(0)
