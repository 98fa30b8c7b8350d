"""What may go wrong with invite links."""

from chatserver.kernel.errors import DomainError, ErrorKind


class InviteNotFoundError(DomainError):
    """Unknown, or another client's."""

    kind = ErrorKind.NOT_FOUND
    code = "invite.not_found"
    title = "There is no such invite."


class InviteEndedError(DomainError):
    """It expired, was revoked, or was used as often as it may be."""

    kind = ErrorKind.GONE
    code = "invite.ended"
    title = "This invite is no longer valid. Ask for a new one."
