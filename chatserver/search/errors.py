"""Why a search is refused."""

from chatserver.kernel.errors import PayloadInvalidError


class SearchCursorInvalidError(PayloadInvalidError):
    """Not a cursor of this caller and this search."""
