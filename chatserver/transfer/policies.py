"""What a line must be, and where it belongs. Pure decisions."""

import re
from typing import Final

from pydantic import ValidationError

from chatserver.infra.staging import Line
from chatserver.kernel import content
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.findings import issues_of, sentence
from chatserver.kernel.wire import EXTERNAL_ID
from chatserver.transfer.errors import LineInvalidError
from chatserver.transfer.schemas import (
    LINES,
    VERSION,
    EventLine,
    FileLine,
    FilePartLine,
    MessageLine,
    ReactionLine,
    RoomLine,
    UserLine,
    moment,
)
from chatserver.transfer.schemas import Line as AnyLine

LONGEST_LINE: Final = 1 << 20
USERS, ROOM, MESSAGE, EVENT, REACTION, MEMBER, EDIT, BAN, FILE = range(9)
EXTERNAL: Final = re.compile(EXTERNAL_ID)


def parsed(number: int, raw: bytes) -> AnyLine | None:
    """Read a line; None: it is only the head of an export.

    Raises:
        LineInvalidError: it can't be taken; says why.
    """
    if len(raw) > LONGEST_LINE:
        raise LineInvalidError.at(number, f"has more than {LONGEST_LINE} bytes")
    try:
        value = content.parse(raw)
    except PayloadInvalidError as error:
        raise LineInvalidError.at(number, error.message) from error
    if not isinstance(value, dict):
        raise LineInvalidError.at(number, "is no JSON object")
    if value.get("type") == "export":
        if value.get("version") != VERSION:
            raise LineInvalidError.at(number, "is of a version that this one can't read")
        return None
    model = LINES.get(str(value.get("type")))
    if model is None:
        raise LineInvalidError.at(number, f"`type` must be one of {', '.join(LINES)}")
    try:
        line = model.model_validate(value)
    except ValidationError as error:
        raise LineInvalidError.at(number, sentence(issues_of(error)[0])) from None
    if isinstance(line, MessageLine) and line.sender == "user" and not is_name(line.sender_id):
        raise LineInvalidError.at(number, "sender_id: is no name of a user")
    return line


def is_name(sender_id: str | None) -> bool:
    """Tell whether somebody of this name can be a sender."""
    # There is none where the person was erased.
    return sender_id is None or EXTERNAL.fullmatch(sender_id) is not None


def placed(number: int, raw: bytes, line: AnyLine) -> Line:
    """Tell by what a line is sorted: its room, its kind, its place or its time."""
    if isinstance(line, FileLine):
        return Line("", FILE, number, raw, at=line.id)
    if isinstance(line, FilePartLine):
        # Behind its file, and in order.
        return Line("", FILE, number, raw, at=f"{line.file_id}:{line.part:08d}")
    if isinstance(line, UserLine):
        return Line("", USERS, number, raw)
    if isinstance(line, RoomLine):
        return Line(line.id, ROOM, number, raw)
    seq = line.seq if isinstance(line, EventLine | MessageLine) else None
    at = moment(line.created_at) if isinstance(line, ReactionLine | MessageLine) else ""
    return Line(line.room_id, _KINDS[line.type], number, raw, seq=seq, at=at)


_KINDS: Final = {
    "message": MESSAGE,
    "event": EVENT,
    "reaction": REACTION,
    "member": MEMBER,
    "edit": EDIT,
    "ban": BAN,
}
