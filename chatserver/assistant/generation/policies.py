"""When bots answer, and what things are called. Pure decisions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.assistant.bots.models import Bot
from chatserver.assistant.generation.stream_log import Piece, contiguous

# A support room is attended for so long after somebody other than the customer has written there.
ATTENDED_S: Final = 900
TITLE: Final = 60


def answer_name(question_id: UUID) -> str:
    """Name the answer to a question as its `client_msg_id`: a bot gives it once."""
    return f"answer:{question_id}"


def carried_on(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Give what an answer takes over of its question: through how many webhooks it came."""
    origin = metadata.get("webhook")
    hops = origin.get("hops") if isinstance(origin, dict) else None
    # Whoever writes may put anything there: nothing else of it is repeated in a bot's name.
    return {"webhook": {"hops": hops}} if type(hops) is int else {}


def is_mentioned(bot: Bot, content: str, mentions: Sequence[str]) -> bool:
    """Tell whether a message names a bot: by id in its `mentions`, or by `@name` in its text."""
    if str(bot.id) in mentions:
        return True
    pattern = rf"(?<!\w)@{re.escape(bot.name)}(?!\w)"
    return re.search(pattern, content, re.IGNORECASE) is not None


def answers(
    *,
    room_type: str,
    how: str,
    is_paused: bool,
    is_mentioned: bool,
    is_attended: bool,
    are_several: bool,
) -> bool:
    """Tell whether a bot answers a person's message.

    `how` is the seat's: `always`, `mentioned`, or `auto`: always in `assistant` rooms and in
    support rooms that nobody attends to, else when mentioned. Of several bots in a room none
    answers unless it is told to.
    """
    if is_paused:
        return False
    if is_mentioned or how == "always":
        return True
    if how == "mentioned" or are_several:
        return False
    return room_type == "assistant" or (room_type == "support" and not is_attended)


def title_of(question: str) -> str:
    """Name a session after its first question: its first line, cut at a word."""
    line = " ".join(question.strip().splitlines()[0].split())
    if len(line) <= TITLE:
        return line
    cut = line[:TITLE].rsplit(" ", 1)[0]
    return (cut if len(cut) > TITLE // 2 else line[:TITLE]).rstrip(" ,;:.-") + "…"


class Answered(Protocol):
    """An answer as its row stands."""

    @property
    def generation(self) -> int: ...

    @property
    def index(self) -> int: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Joined:
    """The text from after `after_index` up to `index`; with 0 it is the whole."""

    index: int
    after_index: int
    text: str


def caught_up(
    state: Answered, pieces: Sequence[Piece], *, generation: int | None, index: int | None
) -> Joined:
    """Join the row and what the log has after it, and leave out what the caller has already.

    `generation` and `index` are the caller's. Only a caller of the same generation gets a tail: an
    older one may have text that was lost since, or replaced.
    """
    after_row = contiguous(pieces, after=state.index, generation=state.generation)
    top = state.index + len(after_row)
    if generation == state.generation and index is not None and index > 0:
        if index >= top:
            # He heard what Redis has lost since; what follows goes on from there.
            return Joined(index, index, "")
        tail = contiguous(pieces, after=index, generation=state.generation)
        is_his = all(piece.generation == generation for piece in tail)
        if index + len(tail) >= top and is_his:
            return Joined(top, index, "".join(piece.text for piece in tail))
    return Joined(top, 0, state.text + "".join(piece.text for piece in after_row))
