"""Rules: when a request is for them, and what they want done, as applications write them."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from chatserver.kernel.wire import Id, Request
from chatserver.rooms.schemas import History
from chatserver.webhooks.sources.payloads import check_text, compiled

MOST_RULES = 50


def _text(value: str) -> str:
    check_text(value)
    return value


def _path(value: str) -> str:
    compiled(value)
    return value


def _texts(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        check_text(value)
    for each in value.values() if isinstance(value, dict) else value if _is_list(value) else ():
        _texts(each)
    return value


def _is_list(value: object) -> bool:
    return isinstance(value, list)


HeaderName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$", to_lower=True)
]
Path: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=256), AfterValidator(_path)
]
# A text with placeholders: `Order {{ $.order.name }} was paid`.
Text: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=20_000), AfterValidator(_text)
]
Name: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=512), AfterValidator(_text)
]
Filled: TypeAlias = Annotated[dict[str, JsonValue], Field(max_length=64), AfterValidator(_texts)]
Names: TypeAlias = Annotated[list[Name], Field(max_length=100)]
RuleName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Condition(Request):
    """A test of one value: of those at a JSONPath of the payload any may pass, or of a header."""

    path: Path | None = None
    header: HeaderName | None = None
    op: Literal[
        "exists",
        "missing",
        "equals",
        "not_equals",
        "in",
        "not_in",
        "contains",
        "starts_with",
        "ends_with",
        "greater",
        "less",
    ] = "equals"
    value: JsonValue = None

    @model_validator(mode="after")
    def _fits(self) -> "Condition":
        if (self.path is None) == (self.header is None):
            raise ValueError("name either path or header")
        wants: dict[str, type | tuple[type, ...]] = {
            "in": list,
            "not_in": list,
            "starts_with": str,
            "ends_with": str,
            "greater": (int, float),
            "less": (int, float),
        }
        if self.op in wants and not isinstance(self.value, wants[self.op]):
            raise ValueError(f"{self.op} takes another kind of value")
        return self


class CreateRoom(Request):
    """Make a room, unless there is one of this `external_id`; people that are unknown are made."""

    type: Literal["create_room"]
    external_id: Name
    room_type: Literal["direct", "group", "support", "channel"] = "group"
    title: Name | None = None
    member_ids: Name | Names = []
    history: History = "all"
    metadata: Filled = {}


class _InRoom(Request):
    """What happens in a room that is named by one of its two ids."""

    room_id: Name | None = None
    room_external_id: Name | None = None

    @model_validator(mode="after")
    def _one_room(self) -> "_InRoom":
        if (self.room_id is None) == (self.room_external_id is None):
            raise ValueError("name either room_id or room_external_id")
        return self


class PostMessage(_InRoom):
    """Post a message, of the `system` or of a member."""

    type: Literal["post_message"]
    content: Text
    sender_id: Name | None = None
    mentions: Name | Names = []
    metadata: Filled = {}


class Notify(Request):
    """Send a notification: what `POST /notifications` takes, with placeholders."""

    type: Literal["notify"]
    notification: Filled


class Forward(Request):
    """Send the event on to one of the client's own webhook endpoints, signed by this server."""

    type: Literal["forward"]
    endpoint_id: Id
    event_type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")] = (
        "webhook.received"
    )
    data: Filled | None = None


class AskAssistant(_InRoom):
    """Ask a bot in a room, in the name of a member."""

    type: Literal["ask_assistant"]
    content: Text
    sender_id: Name
    bot_id: Name | None = None


Action: TypeAlias = Annotated[
    CreateRoom | PostMessage | Notify | Forward | AskAssistant, Field(discriminator="type")
]


class Rule(Request):
    """When all conditions hold, do the actions in order; one that fails ends the rule.

    `name` is the rule's identity: an action was done for an event if it was done under this name
    at this place.
    """

    name: RuleName
    match: Annotated[list[Condition], Field(max_length=20)] = []
    actions: Annotated[list[Action], Field(min_length=1, max_length=10)]
    is_active: bool = True


def _distinct(rules: list[Rule]) -> list[Rule]:
    names = [rule.name for rule in rules]
    if len(names) != len(set(names)):
        raise ValueError("two rules have the same name")
    return rules


Rules: TypeAlias = Annotated[list[Rule], Field(max_length=MOST_RULES), AfterValidator(_distinct)]
