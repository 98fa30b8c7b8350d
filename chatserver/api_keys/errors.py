"""Why a credential is refused. None of these says more than its holder may know."""

from typing import Final

from chatserver.kernel.errors import DomainError, ErrorKind

# What cures a refusal, in its `details`: programs then log in again instead of retrying for ever.
LOGIN: Final = "login"


class AuthMissingError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.missing"
    title = "This needs a key."


class AuthInvalidError(DomainError):
    """One answer for whatever is no key: malformed, unknown, or with a wrong secret."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.invalid"
    title = "This key is not valid."


class AuthExpiredError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.expired"
    title = "This key has expired."


class AuthRevokedError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.revoked"
    title = "This key was revoked."


class AuthReuseDetectedError(DomainError):
    """A key came back that its own successor had retired: two parties hold keys of one device.

    `details`: the successor's `key_id`, and the `door` by which it came into use.
    """

    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.reuse_detected"
    title = "This key was used up by its successor. All keys of the device were ended. Log in."
