"""What may go wrong with moderation."""

from chatserver.kernel.errors import DomainError, ErrorKind


class RuleNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "rule.not_found"
    title = "There is no such rule."


class TooManyRulesError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "moderation.too_many_rules"
    title = "The client has as many rules as it may have."


class FlagNotFoundError(DomainError):
    kind = ErrorKind.NOT_FOUND
    code = "flag.not_found"
    title = "There is no such flag."
