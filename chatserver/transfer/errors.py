"""Why a file can't be imported."""

from chatserver.kernel.errors import DomainError, ErrorKind


class LineInvalidError(DomainError):
    """A line is not what it should be; everything before its room is imported."""

    kind = ErrorKind.INVALID
    code = "import.invalid"
    title = "The file can't be imported."

    @classmethod
    def at(cls, number: int, issue: str) -> "LineInvalidError":
        """Refuse a line by its number, counted from 1."""
        return cls(f"line {number}: {issue}", line=number)


class LineConflictError(LineInvalidError):
    """Something else has its id or its place."""

    kind = ErrorKind.CONFLICT
    code = "import.conflict"
    title = "Something else is there already."
