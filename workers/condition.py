"""Whether a part we need is there: told once per change, not once per try."""

from typing import Final

import structlog

from chatserver.kernel.errors import UnavailableError

OUTAGES: Final[tuple[type[Exception], ...]] = (UnavailableError, OSError)

log = structlog.get_logger()


class Condition:
    """Follows one part, as one user of it sees it. `outages` are errors that are nobody's bug."""

    def __init__(self, part: str, *, outages: tuple[type[Exception], ...] = OUTAGES) -> None:
        self._part = part
        self._outages = outages
        self._state = "well"

    def works(self) -> None:
        if self._state != "well":
            self._state = "well"
            log.info("back_again", part=self._part)

    def fails(self, error: Exception) -> None:
        """Tell of a failure; what is not an outage is a bug, and logged with its trace."""
        is_outage = isinstance(error, self._outages)
        state = "away" if is_outage else "broken"
        if state == self._state:
            return
        self._state = state
        cause = type(error.__cause__ or error).__name__
        if is_outage:
            log.warning("away", part=self._part, error=cause)
        else:
            log.error("broken", part=self._part, error=cause, exc_info=error)
