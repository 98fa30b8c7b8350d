"""What rules want done for a request. Pure: the same request and rules give the same plan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import JsonValue, TypeAdapter

from chatserver.kernel import content
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.webhooks.sources.payloads import Document, MissingValueError, fill, select
from chatserver.webhooks.sources.rule_schemas import (
    Action,
    AskAssistant,
    Condition,
    CreateRoom,
    Forward,
    Notify,
    PostMessage,
    Rule,
)

# An event whose effects came round this often starts nothing any more.
MOST_HOPS: Final = 5
# A list that a placeholder gives, where names are wanted.
MOST_NAMES: Final = 100
_RULES: Final[TypeAdapter[list[Rule]]] = TypeAdapter(list[Rule])


@dataclass(frozen=True, slots=True)
class Planned:
    """One action with its values filled in; with a `problem` it can't be done."""

    rule: str
    place: int
    action: str
    arguments: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A rule, and what it wants. `unmet` is the place of the first condition that does not hold."""

    rule: Rule
    unmet: int | None
    actions: Sequence[Planned]


def stored(rules: Sequence[dict[str, Any]]) -> list[Rule]:
    """Read rules as a row keeps them."""
    return _RULES.validate_python(rules)


def written(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Give the form that a row keeps."""
    return [rule.model_dump(mode="json") for rule in rules]


def try_rules(rules: Sequence[Rule], document: Document) -> list[Tried]:
    """Try every rule that is active on a request."""
    tried = []
    for rule in rules:
        if not rule.is_active:
            continue
        unmet = next(
            (place for place, test in enumerate(rule.match) if not holds(test, document)), None
        )
        actions = [] if unmet is not None else _planned(rule, document)
        tried.append(Tried(rule, unmet, actions))
    return tried


def _planned(rule: Rule, document: Document) -> list[Planned]:
    planned = []
    for place, action in enumerate(rule.actions):
        try:
            arguments = _arguments(action, document)
            content.check(arguments)
        except (MissingValueError, PayloadInvalidError) as error:
            planned.append(Planned(rule.name, place, action.type, problem=str(error)[:500]))
        else:
            planned.append(Planned(rule.name, place, action.type, arguments))
    return planned


def _arguments(action: Action, document: Document) -> dict[str, Any]:
    match action:
        case CreateRoom():
            return {
                "external_id": _name(action.external_id, document),
                "type": action.room_type,
                "title": _name(action.title, document),
                "member_ids": _names(action.member_ids, document),
                "history": action.history,
                "metadata": fill(action.metadata, document),
            }
        case PostMessage():
            return _room(action, document) | {
                "content": _text(action.content, document),
                "sender_id": _name(action.sender_id, document),
                "mentions": _names(action.mentions, document),
                "metadata": fill(action.metadata, document),
            }
        case Notify():
            filled: dict[str, Any] = fill(action.notification, document)
            return filled
        case Forward():
            data = action.data
            return {
                "endpoint_id": str(action.endpoint_id),
                "event_type": action.event_type,
                "data": {"payload": document.payload} if data is None else fill(data, document),
            }
        case AskAssistant():
            return _room(action, document) | {
                "content": _text(action.content, document),
                "sender_id": _name(action.sender_id, document),
                "bot_id": _name(action.bot_id, document),
            }


def _room(action: PostMessage | AskAssistant, document: Document) -> dict[str, Any]:
    return {
        "room_id": _name(action.room_id, document),
        "room_external_id": _name(action.room_external_id, document),
    }


def _text(text: str, document: Document) -> str:
    value = fill(text, document)
    return value if isinstance(value, str) else _plain(value)


def _name(text: str | None, document: Document) -> str | None:
    return None if text is None else _text(text, document)


def _names(given: str | list[str], document: Document) -> list[str]:
    found: list[str] = []
    for each in [given] if isinstance(given, str) else given:
        value = fill(each, document)
        found += [_plain(it) for it in (value if isinstance(value, list) else [value])]
    if len(found) > MOST_NAMES:
        raise MissingValueError(f"a list of at most {MOST_NAMES} names")
    return list(dict.fromkeys(found))


def _plain(value: Any) -> str:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MissingValueError("a text or a number")
    return str(value)


def holds(test: Condition, document: Document) -> bool:
    """Tell whether a condition holds; for a path with several values, whether for any of them."""
    if test.header is not None:
        header = document.headers.get(test.header)
        found: list[Any] = [] if header is None else [header]
    else:
        found = select(document, test.path or "$")
    if test.op == "exists":
        return bool(found)
    if test.op == "missing":
        return not found
    if test.op == "not_equals":
        return not any(same(each, test.value) for each in found)
    if test.op == "not_in":
        return not any(_is_in(each, test.value) for each in found)
    return any(_passes(test, each) for each in found)


def _passes(test: Condition, value: Any) -> bool:  # noqa: ANN401
    return _TESTS[test.op](value, test.value)


def _contains(value: Any, wanted: JsonValue) -> bool:  # noqa: ANN401
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, list) and any(same(each, wanted) for each in value)


def _starts_with(value: Any, wanted: JsonValue) -> bool:  # noqa: ANN401
    return isinstance(value, str) and isinstance(wanted, str) and value.startswith(wanted)


def _ends_with(value: Any, wanted: JsonValue) -> bool:  # noqa: ANN401
    return isinstance(value, str) and isinstance(wanted, str) and value.endswith(wanted)


def _is_greater(value: Any, wanted: JsonValue) -> bool:  # noqa: ANN401
    number = _number(value)
    return number is not None and isinstance(wanted, int | float) and number > wanted


def _is_less(value: Any, wanted: JsonValue) -> bool:  # noqa: ANN401
    number = _number(value)
    return number is not None and isinstance(wanted, int | float) and number < wanted


def _is_in(value: Any, wanted: JsonValue) -> bool:  # noqa: ANN401
    return isinstance(wanted, list) and any(same(value, each) for each in wanted)


def same(value: Any, wanted: JsonValue) -> bool:  # noqa: ANN401
    """Compare as JSON does: `true` is not 1."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)


def _number(value: Any) -> float | None:  # noqa: ANN401
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    # Shops write prices as texts.
    try:
        return float(value) if isinstance(value, str) and len(value) < 40 else None  # noqa: PLR2004
    except ValueError:
        return None


_TESTS: Final[Mapping[str, Callable[[Any, JsonValue], bool]]] = {
    "equals": same,
    "in": _is_in,
    "contains": _contains,
    "starts_with": _starts_with,
    "ends_with": _ends_with,
    "greater": _is_greater,
    "less": _is_less,
}
