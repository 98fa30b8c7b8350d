"""Pure decisions: what a notification of messages says."""

from typing import Final

# The category of what is told of messages.
MESSAGE: Final = "message"
# Of a text that is only pointed at.
EXCERPT: Final = 200
UNTITLED: Final = "New message"


def worded(
    room_type: str | None, title: str | None, sender: str | None, content: str | None
) -> tuple[str, str | None]:
    """Give title and body of a notification: of two people the other one is the title."""
    body = _shortened(content) if content else None
    if room_type == "direct":
        return (sender or title or UNTITLED)[:256], body
    if body is not None and sender is not None:
        body = f"{sender}: {body}"
    return (title or sender or UNTITLED)[:256], body


def _shortened(content: str) -> str:
    line = " ".join(content.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"
