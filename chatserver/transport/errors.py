"""What the doors themselves refuse, before any feature is asked."""

from chatserver.kernel.errors import DomainError, ErrorKind, PayloadInvalidError


class OriginRefusedError(DomainError):
    """The page's origin is not in the list that the client set for its browsers."""

    kind = ErrorKind.FORBIDDEN
    code = "auth.origin"
    title = "This key may not be used from this origin."


class MalformedRequestError(DomainError):
    """The request can't be read as HTTP, or contradicts itself."""

    kind = ErrorKind.MALFORMED
    code = "request.malformed"
    title = "This is not a well-formed request."


class SlowBodyError(DomainError):
    """The body did not arrive within 10 s."""

    kind = ErrorKind.TIMEOUT
    code = "request.timeout"
    title = "The body took too long to arrive."


class MediaTypeError(PayloadInvalidError):
    """The body is not uncompressed `application/json` in UTF-8."""

    kind = ErrorKind.MEDIA_TYPE
    title = "Only uncompressed application/json is taken."


class KeyInQueryError(PayloadInvalidError):
    """A key stands in the address, where logs and histories keep it."""

    kind = ErrorKind.MALFORMED
