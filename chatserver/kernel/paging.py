"""Pages of lists: `page` and `size` in, `{items, page, size, total}` out."""

from typing import Annotated, Generic, TypeAlias, TypeVar

from pydantic import Field

from chatserver.kernel.wire import Answer, Request, left_out

Item = TypeVar("Item")

EXACT_TOTAL = 10_000
PageNumber: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
PageSize: TypeAlias = Annotated[int, Field(ge=1, le=100)]


class PageRequest(Request):
    """Which page of a list: 1-based, at most 100 items."""

    page: PageNumber = 1
    size: PageSize = 20

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.size


class Page(Answer, Generic[Item]):
    """One page. `total` is exact up to 10,000; above, it is 10,000 and a lower bound."""

    items: list[Item]
    page: int
    size: int
    total: int
    total_is_lower_bound: bool | None = left_out()

    @classmethod
    def of(cls, items: list[Item], request: PageRequest, counted: int) -> "Page[Item]":
        """Make a page; `counted` stops counting at `EXACT_TOTAL + 1`."""
        bounded = counted > EXACT_TOTAL
        return cls(
            items=items,
            page=request.page,
            size=request.size,
            total=min(counted, EXACT_TOTAL),
            total_is_lower_bound=True if bounded else None,
        )
