"""Pure decisions: what follows when nobody reads what was said."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatserver.notifications.inbox.policies import UNTITLED


@dataclass(frozen=True, slots=True)
class Escalation:
    """What is sent on a channel of its own when a notification of messages stays unread."""

    channel: str
    after_s: int
    content: dict[str, Any]


def escalations(
    wish: Mapping[str, Any], *, title: str, body: str | None, values: Mapping[str, str]
) -> list[Escalation]:
    """Give what a client wants to follow. `values`: what may stand in its texts, as `{room}`."""
    found: list[Escalation] = []
    email, push = wish.get("email"), wish.get("push")
    if email is not None:
        content = {
            "subject": _line(email["subject"], values),
            "text": filled(email["text"], values),
        }
        if email.get("html") is not None:
            safe = {name: html.escape(value) for name, value in values.items()}
            content["html"] = filled(email["html"], safe)
        found.append(Escalation("email", email["after_s"], content))
    if push is not None:
        said = {"title": title[:256], "body": body, "data": {"room_id": values["room_id"]}}
        found.append(Escalation("push", push["after_s"], said))
    return found


def filled(template: str, values: Mapping[str, str]) -> str:
    """Put values where `{name}` stands; other braces stay as they are."""
    parts = template.split("{")
    made = [parts[0]]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        made.append(values[name] + rest if brace and name in values else "{" + part)
    return "".join(made)


def _line(template: str, values: Mapping[str, str]) -> str:
    return " ".join(filled(template, values).split())[:998] or UNTITLED
