"""What may go wrong with batches."""

from chatserver.kernel.errors import DomainError, ErrorKind


class BatchNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "batch.not_found"
    title = "There is no such batch."
