"""Demo conversations as lines of an import. Pure: the same size gives the same lines, times apart.

Every room is made from its number alone, so what `small` makes is the beginning of `medium`, and
`medium` that of `large`: a larger seed adds to a smaller one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import orjson

from chatserver.cli import seed_texts as texts
from chatserver.kernel.clock import rfc3339

# What seed made carries this: in the metadata of people and rooms, in the name of its bot.
MARK: Final = {"seed": True}
PREFIX: Final = "seed-"
BOT: Final = "Seed: helpdesk"
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
SMALL_ROOMS: Final = 8
STAFF: Final = 8
SPAN: Final = timedelta(days=60)
OWN: Final = 0.04


@dataclass(frozen=True, slots=True)
class Size:
    users: int
    rooms: int
    documents: int


SIZES: Final = {
    "small": Size(users=20, rooms=SMALL_ROOMS, documents=3),
    "medium": Size(users=200, rooms=60, documents=12),
    "large": Size(users=2000, rooms=400, documents=40),
}


def lines(size: Size, now: datetime) -> Iterator[bytes]:
    """Give users, rooms, members, messages and reactions; the last message is of a moment ago."""
    for number in range(size.users):
        yield orjson.dumps(_user(number))
    for number in range(size.rooms):
        for line in _Room(number, now).lines():
            yield orjson.dumps(line)


def documents(size: Size) -> Iterator[tuple[str, str]]:
    """Give title and text of each document."""
    for number in range(size.documents):
        yield _document(number)


def user_id(number: int) -> str:
    """Name a person: the number stands in it only where the name has come round."""
    first = texts.FIRST_NAMES[number % len(texts.FIRST_NAMES)].lower().replace("ë", "e")
    return f"{PREFIX}{first}" if number < len(texts.FIRST_NAMES) else f"{PREFIX}{first}-{number}"


def _user(number: int) -> dict[str, Any]:
    first = texts.FIRST_NAMES[number % len(texts.FIRST_NAMES)]
    last = texts.LAST_NAMES[(number * 7 + number // 23) % len(texts.LAST_NAMES)]
    return {
        "type": "user",
        "user_id": user_id(number),
        "display_name": f"{first} {last}",
        "metadata": MARK | {"role": "staff" if number < STAFF else "customer"},
    }


class _Room:
    """One room and all that is said in it."""

    def __init__(self, number: int, now: datetime) -> None:
        self._number = number
        self._random = Random(f"room {number}")  # noqa: S311 - demo data
        self._now = now
        self._kind = ("group", "direct", "support", "group", "channel", "support")[number % 6]
        # The people of the smallest seed that has this room.
        self._people = next(each.users for each in SIZES.values() if number < each.rooms)
        self.id = f"{PREFIX}{self._kind}-{number + 1}"

    def lines(self) -> Iterator[dict[str, Any]]:
        members = self._members()
        yield {
            "type": "room",
            "id": self.id,
            "external_id": self.id,
            "room_type": self._kind,
            "title": self._title(),
            "metadata": MARK,
            "created_by": user_id(members[0]),
            "created_at": rfc3339(self._now - SPAN),
        }
        yield from self._talk(members)
        for place, member in enumerate(members):
            yield {
                "type": "member",
                "room_id": self.id,
                "user_id": user_id(member),
                "role": "owner" if place == 0 else "member",
            }

    def _members(self) -> list[int]:
        staff, customers = range(min(STAFF, self._people)), range(STAFF, self._people)
        match self._kind:
            case "direct":
                # Each pair once: two people have one such room.
                first = self._number // 6 % STAFF
                return [first, STAFF + (self._number // 6) % (self._people - STAFF)]
            case "support":
                return [self._random.choice(customers), self._random.choice(staff)]
            case "channel":
                return [self._random.choice(staff), *self._random.sample(customers, k=8)]
            case _:
                return self._random.sample(staff, k=self._random.randint(4, len(staff)))

    def _title(self) -> str | None:
        turn = self._number // 6
        match self._kind:
            case "direct":
                return None
            case "support":
                return f"Order {1000 + self._number}: {self._random.choice(texts.COMPLAINTS)}"
            case "channel":
                return texts.CHANNELS[turn % len(texts.CHANNELS)]
            case _:
                return texts.TEAMS[(turn * 2 + self._number % 2) % len(texts.TEAMS)]

    def _talk(self, members: Sequence[int]) -> Iterator[dict[str, Any]]:
        talks: tuple[tuple[tuple[int, str], ...], ...] = {
            "direct": texts.DIRECT_TALK,
            "support": texts.SUPPORT_TALK,
            "channel": texts.CHANNEL_TALK,
        }.get(self._kind, texts.TEAM_TALK)
        count = self._count()
        said = 0
        while said < count:
            talk = self._random.choice(talks)
            speakers = list(members)
            if self._kind == "group":
                self._random.shuffle(speakers)
            filled = self._filled()
            for who, pattern in talk:
                said += 1
                sender = speakers[who % len(speakers)]
                yield self._message(said, sender, pattern.format(**filled), count)
                yield from self._reactions(said, members)

    def _count(self) -> int:
        """Support cases are short; some rooms of a larger seed are long."""
        if self._kind == "support":
            return 3 + self._number % 12
        if self._number < SMALL_ROOMS:
            return 25 + self._number * 37 % 60
        return 60 + self._number * 7919 % 1000

    def _message(self, place: int, sender: int, content: str, count: int) -> dict[str, Any]:
        at = (
            self._now - SPAN * (1 - place / (count + 4)) ** 2 - timedelta(minutes=self._number % 50)
        )
        made: dict[str, Any] = {
            "type": "message",
            "room_id": self.id,
            "id": _message_id(place),
            "sender_id": user_id(sender),
            "content": content,
            "created_at": rfc3339(at),
        }
        if place > 1 and self._random.random() < OWN:
            made["reply_to"] = _message_id(place - 1)
        return made

    def _reactions(self, place: int, members: Sequence[int]) -> Iterator[dict[str, Any]]:
        if self._random.random() > 3 * OWN:
            return
        for member in self._random.sample(list(members), k=min(2, len(members))):
            yield {
                "type": "reaction",
                "room_id": self.id,
                "message_id": _message_id(place),
                "user_id": user_id(member),
                "emoji": self._random.choice(texts.REACTIONS),
            }

    def _filled(self) -> dict[str, str]:
        pick = self._random
        return {
            "part": pick.choice(texts.PARTS),
            "model": pick.choice(texts.MODELS),
            "complaint": pick.choice(texts.COMPLAINTS),
            "day": pick.choice(DAYS),
            "hour": f"{pick.randint(8, 18)}:{pick.choice(('00', '15', '30', '45'))}",
            "order": str(pick.randint(1000, 9999)),
            "shelf": pick.choice("ABCDEF") + str(pick.randint(1, 20)),
            "weeks": str(pick.randint(2, 6)),
        }


def _message_id(place: int) -> str:
    return f"{PREFIX}{place}"


def _document(number: int) -> tuple[str, str]:
    if number < len(texts.GUIDES):
        return texts.GUIDES[number]
    pick = Random(f"document {number}")  # noqa: S311 - demo data
    model = f"{texts.MODELS[number % len(texts.MODELS)]} Mk {1 + number // len(texts.MODELS)}"
    return f"Data sheet: {model}", texts.SHEET.format(
        model=model,
        weight=pick.randint(80, 290) / 10,
        load=pick.randint(90, 220),
        gears=pick.choice((3, 7, 8, 11, 12, 24)),
        brakes=pick.choice(("hydraulic disc", "rim", "roller")),
        tyre=pick.choice((28, 32, 40, 47, 55)),
        pressure=pick.randint(25, 70) / 10,
        interval=pick.choice((1000, 1500, 2000)),
        axle=pick.choice((12, 15, 40)),
        number=f"{pick.randint(10000, 99999)}-{number}",
    )
