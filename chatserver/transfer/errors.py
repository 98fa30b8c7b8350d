"""Why a file can't be imported."""

from chatserver.kernel.errors import DomainError, ErrorKind


class LineInvalidError(DomainError):
    """A line is not what it should be; nothing of the file is stored."""

    kind = ErrorKind.INVALID
    code = "import.invalid"
    title = "The file can't be imported."

    @classmethod
    def at(cls, number: int, issue: str) -> "LineInvalidError":
        """Refuse a line by its number, counted from 1."""
        return cls(f"line {number}: {issue}", line=number)


class LineConflictError(LineInvalidError):
    """Something else has its id or its place; what came before it is stored."""

    kind = ErrorKind.CONFLICT
    code = "import.conflict"
    title = "Something else is there already."
