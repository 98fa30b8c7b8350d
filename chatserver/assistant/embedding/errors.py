"""What may go wrong with an embedder."""

from chatserver.kernel.errors import UnavailableError


class EmbedderAwayError(UnavailableError):
    """A model can't be reached or loaded. Searches go on by words alone; readings wait."""
