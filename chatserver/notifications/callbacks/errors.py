"""What may be refused about providers' events."""

from chatserver.kernel.errors import DomainError, ErrorKind


class CallbackRefusedError(DomainError):
    """The same for an unknown provider, one that tells nothing, and a wrong signature."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "callback.refused"
    title = "Nothing here takes this request."


class CallbackHopelessError(DomainError):
    """Of a provider whose events were understood before: sending it again can't help."""

    kind = ErrorKind.NOT_ACCEPTABLE
    code = "callback.hopeless"
    title = "This request is not signed as it must be, or was signed too long ago."
