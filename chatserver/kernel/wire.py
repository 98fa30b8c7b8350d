"""The base of every payload: what callers send is checked whole, what they get is shaped once."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    StringConstraints,
    WithJsonSchema,
)

from chatserver.kernel.clock import rfc3339

EXTERNAL_ID = r"^[A-Za-z0-9._:@+-]{1,128}$"
_EXTERNAL_ID = re.compile(EXTERNAL_ID)


class Request(BaseModel):
    """What a caller sends. Unknown members are refused, types are not bent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """What a caller gets. Callers ignore members that they don't know."""

    model_config = ConfigDict(frozen=True)

    @property
    def is_repeat(self) -> bool:
        """Whether nothing new was made: REST then answers 200 instead of 201."""
        return False


class Lines(Answer):
    """An answer of unknown length: one JSON object a line, written while it is read. REST only."""

    _lines: AsyncIterator[bytes] | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, lines: AsyncIterator[bytes]) -> "Lines":
        made = cls()
        made._lines = lines
        return made

    def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._lines is not None  # noqa: S101 - made by `of`
        return self._lines


class Empty(Answer):
    """An answer without content."""


def is_external_id(value: str) -> bool:
    """Tell whether a text may be a client's own name for something."""
    # `$` would let a trailing newline pass, and pydantic's own engine differs from `re` in places.
    return _EXTERNAL_ID.fullmatch(value) is not None


def _ascii_name(value: str) -> str:
    if not is_external_id(value):
        msg = "must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ + -"
        raise ValueError(msg)
    return value


def _canonical_id(value: Any) -> Any:  # noqa: ANN401 - the next validator refuses the rest
    # Strict mode takes no string for a UUID, and `UUID()` alone takes braces and URNs.
    if isinstance(value, str):
        if _ID.fullmatch(value) is None:
            msg = "is not an id"
            raise ValueError(msg)
        return UUID(value)
    return value


_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Id: TypeAlias = Annotated[
    UUID,
    BeforeValidator(_canonical_id),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
ExternalId: TypeAlias = Annotated[
    str,
    AfterValidator(_ascii_name),
    WithJsonSchema({"type": "string", "pattern": EXTERNAL_ID}),
]


def _written(moment: datetime | str) -> str:
    # An answer that was built from a row's own text has its times written already.
    return moment if isinstance(moment, str) else rfc3339(moment)


def left_out() -> Any:  # noqa: ANN401 - a default, whatever the field's type
    """Give the default of a member that is left out where it does not apply, instead of null."""
    return Field(default=None, exclude_if=_is_none)


def _is_none(value: object) -> bool:
    return value is None


Timestamp: TypeAlias = Annotated[
    datetime,
    PlainSerializer(_written, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
ShortText: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Metadata: TypeAlias = Annotated[dict[str, Any], Field(max_length=64)]
