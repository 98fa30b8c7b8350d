"""What may go wrong with providers."""

from chatserver.kernel.errors import DomainError, ErrorKind


class ProviderNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "provider.not_found"
    title = "There is no such provider."


class ProviderLimitError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "provider.limit"
    title = "The client has as many providers as it may have."
