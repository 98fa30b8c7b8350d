import pytest
from pydantic import ValidationError

from chatserver.kernel.paging import EXACT_TOTAL, Page, PageRequest


class TestPageRequest:
    def test_the_first_page_of_twenty_is_the_default(self) -> None:
        asked = PageRequest()
        assert (asked.page, asked.size, asked.offset) == (1, 20, 0)

    @pytest.mark.parametrize(
        ("page", "size", "offset"), [(1, 100, 0), (3, 7, 14), (1_000_000, 1, 999_999)]
    )
    def test_the_offset_follows_from_page_and_size(self, page: int, size: int, offset: int) -> None:
        assert PageRequest(page=page, size=size).offset == offset

    @pytest.mark.parametrize(
        "members",
        [
            {"page": 0},
            {"page": -1},
            {"page": 1_000_001},
            {"size": 0},
            {"size": 101},
            {"page": "1"},
            {"size": 1.0},
            {"page": True},
            {"limit": 5},
        ],
    )
    def test_anything_out_of_bounds_is_refused(self, members: dict[str, object]) -> None:
        with pytest.raises(ValidationError):
            PageRequest.model_validate(members)


class TestPage:
    @pytest.mark.parametrize("counted", [0, 7, EXACT_TOTAL])
    def test_a_total_that_was_counted_is_exact(self, counted: int) -> None:
        page = Page[int].of([1], PageRequest(page=2, size=5), counted)
        assert page.model_dump() == {"items": [1], "page": 2, "size": 5, "total": counted}

    def test_a_total_beyond_the_count_is_a_lower_bound(self) -> None:
        page = Page[int].of([], PageRequest(), EXACT_TOTAL + 1)
        assert page.total == EXACT_TOTAL
        assert page.model_dump()["total_is_lower_bound"] is True
