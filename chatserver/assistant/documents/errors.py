"""What may go wrong with documents."""

from chatserver.kernel.errors import DomainError, ErrorKind


class DocumentNotFoundError(DomainError):
    """Unknown, deleted, another client's, or not the caller's to see: all the same."""

    kind = ErrorKind.NOT_FOUND
    code = "document.not_found"
    title = "There is no such document."


class DocumentTooLargeError(DomainError):
    kind = ErrorKind.TOO_LARGE
    code = "document.too_large"
    title = "A document may have at most 50 MB."


class DocumentUnsupportedError(DomainError):
    kind = ErrorKind.INVALID
    code = "document.unsupported"
    title = "This is not a document that can be read."
