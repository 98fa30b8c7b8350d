"""What may be refused about users."""

from collections.abc import Iterable

from chatserver.kernel.errors import DomainError, ErrorKind, Issue


class UserErasingError(DomainError):
    """The name is free again once the report says so; until then nobody may be given it."""

    kind = ErrorKind.CONFLICT
    code = "user.erasing"
    title = "This user is being erased. Try again when the erasure is complete."


class UserNotFoundError(DomainError):
    """No such user of this client, or none that this caller may look at."""

    kind = ErrorKind.NOT_FOUND
    code = "user.not_found"
    title = "There is no such user."

    @classmethod
    def at(cls, fields: Iterable[str]) -> "UserNotFoundError":
        """Name the fields of the payload that hold the unknown ids; at most 20 of them."""
        issues: tuple[Issue, ...] = tuple({"field": it, "issue": "no such user"} for it in fields)
        return cls(issues=issues[:20])
