"""What is read out of an event before anybody runs it: its name, its lane."""

from typing import Any

from chatserver.realtime import packets
from chatserver.realtime.errors import NamespaceUnknownError, ProtocolViolationError


def name_of_event(parsed: Any) -> str:
    """Give the name of the command.

    Raises:
        ProtocolViolationError: there is none that could be one.
    """
    if (
        not isinstance(parsed, list)
        or not parsed
        or not isinstance(parsed[0], str)
        or parsed[0] in packets.RESERVED
    ):
        raise ProtocolViolationError("a bad event")
    return parsed[0]


def lane_of(payload: object) -> str:
    """Commands about one room, or one message, keep their order; others don't wait for them."""
    if not isinstance(payload, dict):
        return ""
    for name in ("room_id", "message_id"):
        key = payload.get(name)
        if isinstance(key, str):
            return key
    return ""


def where_to(namespace: str, namespaces: list[str]) -> str:
    """Say where to connect instead of a namespace that there is not."""
    if namespace != "/":
        return NamespaceUnknownError.title
    *others, last = namespaces
    return f"Connect to one of the namespaces {', '.join(others)} and {last}."
