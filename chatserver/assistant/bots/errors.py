"""What may go wrong with bots."""

from chatserver.kernel.errors import DomainError, ErrorKind


class BotNotFoundError(DomainError):
    """Unknown, another client's, or not one that the caller may use: all the same."""

    kind = ErrorKind.NOT_FOUND
    code = "bot.not_found"
    title = "There is no such bot."


class BotElsewhereError(DomainError):
    """Bots live in the dashboard's database: they are changed there."""

    kind = ErrorKind.CONFLICT
    code = "bot.managed_elsewhere"
    title = "Bots are kept in the dashboard's database. Change them there."
