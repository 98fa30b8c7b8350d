"""What rules read out of a request: JSONPath within bounds, and values put into texts.

A payload comes from a stranger and a path from a tenant: no path may take longer than a walk over
the payload, so regular expressions and queries inside of queries are not in our dialect (RFC 9535
otherwise).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from jsonpath_rfc9535 import JSONPathEnvironment, JSONPathError, JSONPathQuery
from jsonpath_rfc9535.filter_expressions import (
    ComparisonExpression,
    Expression,
    FilterExpression,
    FilterQuery,
    FunctionExtension,
    LogicalExpression,
    PrefixExpression,
)
from jsonpath_rfc9535.segments import JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath_rfc9535.selectors import FilterSelector, IndexSelector, NameSelector

from chatserver.kernel.content import MAX_INTEGER
from chatserver.webhooks.sources.claims import fields_of

LONGEST_PATH: Final = 256
MOST_SEGMENTS: Final = 20
MOST_NODES: Final = 1000
MOST_CHARACTERS: Final = 20_000
MOST_PLACEHOLDERS: Final = 50
_DEPTH: Final = 64
# How much of a placeholder a refusal repeats.
SHOWN: Final = 80

# `{{ $.order.id }}`, `{{ header.x-topic }}`, `{{ $.name | "somebody" }}`
_PLACEHOLDER: Final = re.compile(r"\{\{((?:(?!\}\}).){0,300})\}\}", re.DOTALL)
_DEFAULT: Final = re.compile(r'\|\s*+"([^"]{0,200})"\s*+\Z')
_HEADER: Final = re.compile(r"\Aheader\.([a-z0-9-]{1,64})\Z")
_EVENT: Final = frozenset({"event.id", "event.external_id", "event.received_at", "source.slug"})


class MissingValueError(Exception):
    """A payload has no value where a rule needs one. `where` is the placeholder."""

    def __init__(self, where: str) -> None:
        super().__init__(f"the request has no value for {where}")
        self.where = where


@dataclass(frozen=True, slots=True)
class Document:
    """A request, taken apart for rules. `event` holds what `{{ event.id }}` and its like say."""

    payload: Any
    headers: Mapping[str, str]
    event: Mapping[str, str]


class _Paths(JSONPathEnvironment):
    max_recursion_depth = _DEPTH

    def setup_function_extensions(self) -> None:
        # `match` and `search` run regular expressions of tenants over texts of strangers.
        super().setup_function_extensions()
        del self.function_extensions["match"], self.function_extensions["search"]


_PATHS: Final = _Paths()


def payload_of(headers: Mapping[str, str], body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read what a request says: JSON, or the fields of a form; None when it is neither.

    A form whose one field `payload` is JSON (GitHub, Slack) is that JSON.
    """
    form = fields_of(headers, body)
    if form is not None:
        fields: dict[str, Any] = {}
        for name, value in form:
            if name in fields:
                before = fields[name]
                fields[name] = [*(before if isinstance(before, list) else [before]), value]
            else:
                fields[name] = value
        wrapped = fields.get("payload")
        if isinstance(wrapped, str):
            found = _json(wrapped.encode("utf-8", "replace"))
            return fields if found is None else found
        return fields
    return _json(body)


@lru_cache(maxsize=2000)
def compiled(path: str) -> JSONPathQuery:
    """Compile a path of our dialect.

    Raises:
        ValueError: it is none, or could take too long; the text says why.
    """
    if len(path) > LONGEST_PATH:
        raise ValueError(f"may have at most {LONGEST_PATH} characters")
    try:
        query = _PATHS.compile(path)
    except (JSONPathError, RecursionError) as error:
        raise ValueError("is not a JSONPath (RFC 9535)") from error
    if len(query.segments) > MOST_SEGMENTS:
        raise ValueError(f"may have at most {MOST_SEGMENTS} segments")
    descents = 0
    for segment in query.segments:
        descents += isinstance(segment, JSONPathRecursiveDescentSegment)
        filters = [each for each in segment.selectors if isinstance(each, FilterSelector)]
        for each in filters:
            _check_filter(each.expression)
    if descents > 1:
        raise ValueError("may have one .. at most")
    # `[*, *][*, *]…` doubles what it finds with each segment.
    if sum(len(segment.selectors) > 1 for segment in query.segments) > 1:
        raise ValueError("may have several selectors in one segment only")
    return query


def _check_filter(expression: Expression) -> None:
    # Each test looks at a few fixed places: its cost does not depend on the payload.
    if isinstance(expression, FilterQuery):
        if not all(_is_singular(segment) for segment in expression.query.segments):
            raise ValueError("may name single values only, inside of a filter")
        return
    for part in _parts(expression):
        _check_filter(part)


def _parts(expression: Expression) -> Iterable[Expression]:
    if isinstance(expression, FilterExpression):
        return (expression.expression,)
    if isinstance(expression, LogicalExpression | ComparisonExpression):
        return (expression.left, expression.right)
    if isinstance(expression, PrefixExpression):
        return (expression.right,)
    if isinstance(expression, FunctionExtension):
        return expression.args
    return ()


def _is_singular(segment: JSONPathSegment) -> bool:
    return (
        not isinstance(segment, JSONPathRecursiveDescentSegment)
        and len(segment.selectors) == 1
        and isinstance(segment.selectors[0], NameSelector | IndexSelector)
    )


def select(document: Document, path: str) -> list[Any]:
    """Give the values at a path, at most 1,000; none where the payload is too deep."""
    found: list[Any] = []
    try:
        for node in compiled(path).finditer(document.payload):
            found.append(node.value)
            if len(found) == MOST_NODES:
                break
    except (JSONPathError, RecursionError):
        return []
    return found


def check_text(text: str) -> None:
    """Check the placeholders of a text.

    Raises:
        ValueError: one can't be filled by anything.
    """
    found = _PLACEHOLDER.findall(text)
    if len(found) > MOST_PLACEHOLDERS:
        raise ValueError(f"may have at most {MOST_PLACEHOLDERS} placeholders")
    for inner in found:
        where, _ = _parsed(inner)
        if where.startswith("$"):
            try:
                compiled(where)
            except ValueError as error:
                raise ValueError(f"{where[:SHOWN]} {error}") from error
        elif _HEADER.match(where) is None and where not in _EVENT:
            raise ValueError(f"{where[:SHOWN]} is neither $…, header.NAME nor event.id")


def fill(value: Any, document: Document) -> Any:  # noqa: ANN401 - any JSON
    """Put values into all texts of a JSON value. A text that is one placeholder keeps its type.

    Raises:
        MissingValueError: there is no value and no default, or the text grows too long.
    """
    if isinstance(value, str):
        return _filled(value, document)
    if isinstance(value, list):
        return [fill(each, document) for each in value]
    if isinstance(value, dict):
        return {name: fill(each, document) for name, each in value.items()}
    return value


def _filled(text: str, document: Document) -> Any:  # noqa: ANN401
    whole = _PLACEHOLDER.fullmatch(text.strip())
    if whole is not None:
        return _value(whole.group(1), document)
    written = _substituted(text, lambda inner: as_text(_value(inner, document)))
    if len(written) > MOST_CHARACTERS:
        raise MissingValueError(f"a text of at most {MOST_CHARACTERS} characters")
    return written


def _substituted(text: str, write: Callable[[str], str]) -> str:
    parts: list[str] = []
    at = length = 0
    for found in _PLACEHOLDER.finditer(text):
        parts += (text[at : found.start()], write(found.group(1)))
        at = found.end()
        length += len(parts[-1])
        if length > MOST_CHARACTERS:
            raise MissingValueError(f"a text of at most {MOST_CHARACTERS} characters")
    parts.append(text[at:])
    return "".join(parts)


def _value(inner: str, document: Document) -> Any:  # noqa: ANN401
    where, default = _parsed(inner)
    found: Any = None
    if where.startswith("$"):
        values = select(document, where)
        found = values[0] if len(values) == 1 else (values or None)
    elif (header := _HEADER.match(where)) is not None:
        found = document.headers.get(header.group(1))
    else:
        found = document.event.get(where)
    if found is not None and found != "":
        return found
    if default is None:
        raise MissingValueError(where[:SHOWN])
    return default


def as_text(value: Any) -> str:  # noqa: ANN401
    """Write a value into a text: texts as they are, lists of them with commas, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return orjson.dumps(value).decode()


def _parsed(inner: str) -> tuple[str, str | None]:
    # A filter may hold `||`: only a quoted text at the end is a default.
    found = _DEFAULT.search(inner)
    if found is not None and not inner[: found.start()].rstrip().endswith("|"):
        return inner[: found.start()].strip(), found.group(1)
    return inner.strip(), None


def _json(body: bytes) -> Any:  # noqa: ANN401
    try:
        return _bounded(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None


def _bounded(value: Any) -> Any:  # noqa: ANN401
    """Make a payload fit for what follows: None if it is too deep, large integers as texts.

    JavaScript would lose digits of these, and vendors number things with them.
    """
    holder = [value]
    level: list[Any] = [holder]
    for _ in range(_DEPTH):
        below: list[Any] = []
        for each in level:
            places = each.items() if isinstance(each, dict) else enumerate(each)
            for place, item in places:
                if isinstance(item, dict | list):
                    below.append(item)
                elif type(item) is int and abs(item) > MAX_INTEGER:
                    each[place] = str(item)
        if not below:
            return holder[0]
        level = below
    return None
