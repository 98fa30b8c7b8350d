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
        self._is_well = True

    def works(self) -> None:
        if not self._is_well:
            self._is_well = True
            log.info("back_again", part=self._part)

    def fails(self, error: Exception) -> None:
        """Tell of a failure; what is not an outage is a bug, and logged with its trace."""
        if not self._is_well:
            return
        self._is_well = False
        cause = type(error.__cause__ or error).__name__
        if isinstance(error, self._outages):
            log.warning("away", part=self._part, error=cause)
        else:
            log.error("broken", part=self._part, error=cause, exc_info=error)
