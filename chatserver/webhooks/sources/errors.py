"""What may be refused about inbound webhooks."""

from chatserver.kernel.errors import DomainError, ErrorKind


class SourceNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "source.not_found"
    title = "There is no such source."


class SourceSlugTakenError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "source.slug_taken"
    title = "Another source has this slug."


class SourceSecretNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "source_secret.not_found"
    title = "There is no such secret."


class LastSecretError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "source.last_secret"
    title = "A source needs a secret that lives: add another first."


class InboundEventNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "inbound_event.not_found"
    title = "There is no such event."


class InboundRefusedError(DomainError):
    """The same for an unknown client, an unknown source and a wrong signature."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "webhook.refused"
    title = "Nothing here takes this request. The owner of the source can see why."


class InboundTooLateError(DomainError):
    """Signed by a secret of the source, but long ago: sending it again can't help."""

    kind = ErrorKind.NOT_ACCEPTABLE
    code = "webhook.too_late"
    title = "This request was signed too long ago."
