"""What may be refused about tenants and their master keys."""

from chatserver.kernel.errors import DomainError, ErrorKind


class ClientNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "client.not_found"
    title = "There is no such client."


class SlugTakenError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "client.slug_taken"
    title = "Another client has this slug."


class KeyNotFoundError(DomainError):
    """No such key here: a master key of the client, or a scoped key of the user."""

    kind = ErrorKind.NOT_FOUND
    code = "key.not_found"
    title = "There is no such key."


class LastKeyError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "key.last"
    title = "This is the client's last key: rotate it instead, or make another one first."
