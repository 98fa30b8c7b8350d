"""The base of every payload: what callers send is checked whole, what they get is shaped once."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias
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

    # Its validator is built when it is first used: building hundreds takes a quarter of a start.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


def shows(**members: Any) -> ConfigDict:  # noqa: ANN401 - members of any model
    """Give a model the example that the documents show, where they can't guess a good one."""
    return ConfigDict(json_schema_extra={"examples": [members]})


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file of a form, received whole. `path` is where it lies until the request is answered.

    `name` is what its sender calls it: for people to read, never part of a path.
    """

    name: str
    size: int
    sha256: bytes
    path: Path = field(repr=False)

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the content in pieces of 256 KiB."""
        opened = await asyncio.to_thread(self.path.open, "rb")
        try:
            while piece := await asyncio.to_thread(opened.read, 256 * 1024):
                yield piece
        finally:
            await asyncio.to_thread(opened.close)


class UploadRequest(Request):
    """A request that may come as a form with files (multipart/form-data). REST only."""

    _files: tuple[UploadedFile, ...] = PrivateAttr(default=())

    @property
    def files(self) -> tuple[UploadedFile, ...]:
        return self._files

    def with_files(self, files: tuple[UploadedFile, ...]) -> Self:
        """Hand over what the form brought; called by the door alone."""
        made = self.model_copy()
        made._files = files  # noqa: SLF001 - its own
        return made


class Answer(BaseModel):
    """What a caller gets. Callers ignore members that they don't know."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    @property
    def is_repeat(self) -> bool:
        """Whether nothing new was made: REST then answers 200 instead of 201."""
        return False

    def as_json(self) -> bytes:
        """Write it as callers get it."""
        return self.__pydantic_serializer__.to_json(self)


class Written(Answer):
    """An answer that was written already; its other base is the model that is documented.

    Whoever looks at a member all the same has the whole of it read.
    """

    _json: bytes = PrivateAttr(default=b"null")

    @classmethod
    def of(cls, json: bytes, **known: Any) -> Self:  # noqa: ANN401 - members of that model
        """Make one; `known` are the members that are looked at here."""
        # As `model_construct` does, without a look at the members that are not there.
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", known)
        object.__setattr__(made, "__pydantic_fields_set__", set(known))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", {"_json": json})
        return made

    def as_json(self) -> bytes:
        # Not `self._json`, which pydantic looks for in two other places first: 2.3 µs against 0.1.
        private = self.__pydantic_private__
        return b"null" if private is None else private["_json"]

    if not TYPE_CHECKING:  # or every attribute would be there for whoever checks types

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            if name not in type(self).__pydantic_fields__:
                return super().__getattr__(name)
            self.__dict__.update(type(self).model_validate_json(self._json).__dict__)
            return self.__dict__[name]


class Lines(Answer):
    """An answer of unknown length: one JSON object a line, written while it is read. REST only."""

    _lines: AsyncIterator[bytes] | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, lines: AsyncIterator[bytes]) -> Self:
        made = cls()
        made._lines = lines
        return made

    def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._lines is not None  # noqa: S101 - made by `of`
        return self._lines


class Table(Lines):
    """Comma-separated values (RFC 4180), written while they are read. REST only."""


class EventStream(Lines):
    """Server-sent events, written while they happen. REST only."""


class Followed(Answer):
    """An answer that something follows on: REST goes on with that as server-sent events.

    For whoever asks for `text/event-stream`; everybody else gets the answer alone.
    """

    @property
    def goes_on(self) -> bool:
        """Whether something follows: else REST answers 201 where 202 is the rule."""
        return True


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


def defaulting(to: type[list[Any]] | type[dict[str, Any]]) -> Any:  # noqa: ANN401 - as above
    """Give the default of a member that is empty where it is left out, made anew each time."""
    return Field(default_factory=to, json_schema_extra={"default": to()})


def _is_none(value: object) -> bool:
    return value is None


Timestamp: TypeAlias = Annotated[
    datetime,
    PlainSerializer(_written, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
ShortText: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Metadata: TypeAlias = Annotated[dict[str, Any], Field(max_length=64)]
