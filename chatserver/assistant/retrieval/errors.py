"""What may go wrong with a look at receipts."""

from chatserver.kernel.errors import DomainError, ErrorKind


class RetrievalNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "retrieval.not_found"
    title = "There is no such receipt of a search."
