"""Searching: a command of `/chat`, and a route to it."""

from typing import Final

from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import SEEN
from chatserver.search.errors import SearchCursorInvalidError
from chatserver.search.schemas import SearchMessages, SearchResults
from chatserver.search.service import SearchService
from chatserver.transport.registry import Route, command


class SearchCommands:
    def __init__(self, search: SearchService) -> None:
        self._search = search

    @command(
        "message.search",
        SearchMessages,
        SearchResults,
        scope=Scope.CHAT_READ,
        errors=(*SEEN, SearchCursorInvalidError),
    )
    async def search(self, principal: Principal, request: SearchMessages) -> SearchResults:
        """Find messages by their words.

        A user finds what is in his rooms, from where he may read; a master key finds all of its
        client. `"words in a row"`, `begin*`, `-without`. A message can be found about a second
        after it was sent. The newest 1,000 that fit are ranked, then the cursor goes on.
        """
        return await self._search.search(principal, request)


ROUTES: Final = (Route(method="GET", path="/search/messages", operation="message.search"),)
