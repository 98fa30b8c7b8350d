"""Why a session refuses."""

from chatserver.kernel.errors import DomainError, ErrorKind


class SessionNotFoundError(DomainError):
    """Unknown, another client's, or somebody else's: all the same answer."""

    kind = ErrorKind.NOT_FOUND
    code = "session.not_found"
    title = "There is no such session."
