"""What JSON from a stranger may contain, checked before any model sees it.

PostgreSQL refuses NUL and lone surrogates in text and non-finite numbers in jsonb, JavaScript loses
integers beyond 2^53 - 1, and a parser's stack has an end: each is refused here, its field named.
"""

import json
import math
from typing import Any

from chatserver.kernel.errors import PayloadInvalidError

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1


def parse(raw: bytes | str) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON strictly: no duplicate members, no NaN, no depth that hurts.

    Raises:
        PayloadInvalidError: it isn't JSON, or a member is not acceptable.
    """
    try:
        value = json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise PayloadInvalidError.of("$", f"nested deeper than {MAX_DEPTH}") from error
    except UnicodeDecodeError as error:
        raise PayloadInvalidError.of("$", "is not UTF-8") from error
    except ValueError as error:
        raise PayloadInvalidError.of("$", "is not JSON") from error
    check(value)
    return value


def check(value: Any, name: str = "") -> None:  # noqa: ANN401
    """Walk a parsed value and refuse what can't be stored or sent on.

    Raises:
        PayloadInvalidError: with the dotted path of the first bad member.
    """
    pending: list[tuple[str, Any, int]] = [(name, value, 0)]
    while pending:
        path, item, depth = pending.pop()
        if isinstance(item, dict | list | tuple):
            if depth >= MAX_DEPTH:
                raise PayloadInvalidError.of(path or "$", f"nested deeper than {MAX_DEPTH}")
            for key, member in item.items() if isinstance(item, dict) else enumerate(item):
                if isinstance(key, str):
                    _check_text(path or "$", key)
                pending.append((f"{path}.{key}" if path else str(key), member, depth + 1))
        else:
            _check_scalar(path, item)


def _check_scalar(path: str, item: Any) -> None:  # noqa: ANN401
    if isinstance(item, str):
        _check_text(path, item)
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise PayloadInvalidError.of(path or "$", "is not a finite number")
    elif isinstance(item, int):
        if abs(item) > MAX_INTEGER:
            raise PayloadInvalidError.of(path or "$", "is beyond 2^53 - 1")
    elif item is not None:
        raise PayloadInvalidError.of(path or "$", "is binary; send text")


def _check_text(path: str, text: str) -> None:
    if text.isascii():
        if "\x00" in text:
            raise PayloadInvalidError.of(path or "$", "contains NUL")
        return
    if "\x00" in text:
        raise PayloadInvalidError.of(path or "$", "contains NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PayloadInvalidError.of(path or "$", "contains a lone surrogate") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
    return key[:64].encode("ascii", "backslashreplace").decode()
