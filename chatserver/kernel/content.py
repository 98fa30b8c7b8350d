"""What JSON from a stranger may contain, checked before any model sees it.

PostgreSQL refuses NUL and lone surrogates in text and non-finite numbers in jsonb, JavaScript loses
integers beyond 2^53 - 1, and a parser's stack has an end: each is refused here, its field named.
"""

import json
import math
import re
from typing import Any, Final, TypeAlias

import orjson

from chatserver.kernel.errors import PayloadInvalidError

MAX_DEPTH: Final = 32
MAX_INTEGER: Final = 2**53 - 1
# How much of a stranger's member name an error repeats.
SHOWN: Final = 64

# Where a member stands, written out only for an error: a long name above a long list would
# otherwise be copied once per item.
_Place: TypeAlias = "tuple[_Place, str | int] | None"


# A number that may be too large; in a text it only costs a look.
_LONG_NUMBER: Final = re.compile(r"[:,\[]-?[0-9]{16}")


class Checked(dict[str, Any]):
    """An object that `check` has nothing to say about: `plain` has seen that."""

    __slots__ = ()


def plain(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Parse the JSON that nearly everyone sends, and cheaply; None: only `parse` can tell.

    What gives the very same text when it is written again has no member twice, no number that
    means another, and no blanks. The objects of an array come as `Checked`.
    """
    try:
        value = orjson.loads(text)
        if type(value) is not list or orjson.dumps(value) != text.encode():
            return None
    except ValueError:
        return None
    if (
        "\\u0000" in text
        or text.count("{") + text.count("[") >= MAX_DEPTH
        or _LONG_NUMBER.search(text) is not None
    ):
        return value
    return [Checked(each) if type(each) is dict else each for each in value]


def parse(raw: bytes | str) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON strictly: no duplicate members, no NaN, no depth that hurts.

    Raises:
        PayloadInvalidError: it isn't JSON, or a member is not acceptable.
    """
    try:
        # Python would take UTF-16 and a byte order mark, too.
        text = raw.decode() if isinstance(raw, bytes) else raw
        value = json.loads(text, object_pairs_hook=unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise PayloadInvalidError.of("$", f"nested deeper than {MAX_DEPTH}") from error
    except UnicodeDecodeError as error:
        raise PayloadInvalidError.of("$", "is not UTF-8") from error
    except ValueError as error:
        raise PayloadInvalidError.of("$", "is not JSON") from error
    check(value)
    return value


def check(value: Any) -> None:  # noqa: ANN401
    """Walk a parsed value and refuse what can't be stored or sent on.

    Raises:
        PayloadInvalidError: with the dotted path of a bad member.
    """
    if type(value) is Checked:
        return
    pending: list[tuple[_Place, Any, int]] = [(None, value, 0)]
    while pending:
        place, item, depth = pending.pop()
        if isinstance(item, dict | list | tuple):
            if depth >= MAX_DEPTH:
                raise _refusal(place, f"nested deeper than {MAX_DEPTH}")
            for key, member in item.items() if isinstance(item, dict) else enumerate(item):
                if isinstance(key, str):
                    _check_text(place, key)
                pending.append(((place, key), member, depth + 1))
        else:
            _check_scalar(place, item)


def _check_scalar(place: _Place, item: Any) -> None:  # noqa: ANN401
    if isinstance(item, str):
        _check_text(place, item)
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise _refusal(place, "is not a finite number")
    elif isinstance(item, int):
        if abs(item) > MAX_INTEGER:
            raise _refusal(place, "is beyond 2^53 - 1")
    elif item is not None:
        raise _refusal(place, "is binary; send text")


def _check_text(place: _Place, text: str) -> None:
    if "\x00" in text:
        raise _refusal(place, "contains NUL")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refusal(place, "contains a lone surrogate") from error


def _refusal(place: _Place, issue: str) -> PayloadInvalidError:
    names: list[str] = []
    while place is not None:
        place, name = place
        names.append(_printable(str(name)))
    return PayloadInvalidError.of(".".join(reversed(names)) or "$", issue)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of parsed members, for `json.loads`.

    Raises:
        PayloadInvalidError: one stands twice.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise PayloadInvalidError.of(_printable(key), "stands twice")
            seen.add(key)
    return members


def _no_constant(_: str) -> float:
    return math.nan  # `check` then names the field


def _printable(key: str) -> str:
    return key[:SHOWN].encode("utf-8", "backslashreplace").decode()
