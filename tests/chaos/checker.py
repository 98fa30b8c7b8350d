"""Judges a history against the log in PostgreSQL, when all is over.

The ids are those of the invariants: I1 acked is durable, I2 one identity one row, I3 gapless total
order, I4 no tenant sees another's.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import asyncpg

Entry = dict[str, Any]


@dataclass
class Truth:
    """What the database holds: each room's log, and where each message stands."""

    log: dict[str, list[tuple[int, str, str]]]  # room: (seq, fact id, type)
    messages: dict[tuple[str, str], list[int]]  # (room, client_msg_id): seqs
    members: dict[str, set[str]]  # room: external ids
    last_seqs: dict[str, int]
    texts: dict[str, str] = field(default_factory=dict)  # message id: its text now, cut off
    pinned: set[str] = field(default_factory=set)
    stored_at: dict[str, float] = field(default_factory=dict)  # client_msg_id: Unix seconds

    @classmethod
    async def read(cls, admin_url: str) -> "Truth":
        connection = await asyncpg.connect(admin_url)
        try:
            log = defaultdict(list)
            for row in await connection.fetch(
                "select room_id, seq, id, type from room_event order by room_id, seq"
            ):
                log[str(row["room_id"])].append((row["seq"], str(row["id"]), row["type"]))
            messages = defaultdict(list)
            texts, pinned, stored_at = {}, set(), {}
            for row in await connection.fetch(
                "select id, room_id, client_msg_id, seq, left(content, 60) as text, pinned,"
                " created_at from message"
            ):
                stored_at[row["client_msg_id"]] = row["created_at"].timestamp()
                if row["pinned"]:
                    pinned.add(str(row["id"]))
                messages[str(row["room_id"]), row["client_msg_id"]].append(row["seq"])
                texts[str(row["id"])] = row["text"]
            members = defaultdict(set)
            for row in await connection.fetch(
                "select room_id, external_id from member join app_user on app_user.id = user_id"
            ):
                members[str(row["room_id"])].add(row["external_id"])
            rooms = await connection.fetch("select id, last_seq from room")
            last_seqs = {str(row["id"]): row["last_seq"] for row in rooms}
        finally:
            await connection.close()
        return cls(dict(log), dict(messages), dict(members), last_seqs, texts, pinned, stored_at)


@dataclass
class Verdict:
    """`faults` is empty when every invariant holds; the rest is for the report."""

    faults: list[str] = field(default_factory=list)
    sends: int = 0
    acked: int = 0
    refused: int = 0
    applied: int = 0
    heard: int = 0
    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    disordered: int = 0
    leaked: int = 0
    outdated: int = 0
    reloads: int = 0
    recoveries: int = 0
    disconnects: int = 0

    def figures(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


class Judge:
    """`canaries`: which word each client's rooms carry in every text. With `rewound` the database
    lost its tail on purpose, and an acknowledgement of before proves nothing."""

    def __init__(self, truth: Truth, canaries: dict[str, str], *, rewound: bool = False) -> None:
        self._truth = truth
        self._canaries = canaries
        self._rewound = rewound
        self._shown: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._since: dict[tuple[str, str], int] = defaultdict(int)
        self._lines: dict[tuple[str, str, int], list[Entry]] = defaultdict(list)
        self._verdict = Verdict()

    def judge(self, history: Iterable[Entry]) -> Verdict:
        for entry in history:
            self._read(entry)
        truth, verdict = self._truth, self._verdict
        for room, rows in truth.log.items():
            if [seq for seq, _, _ in rows] != list(range(1, truth.last_seqs[room] + 1)):
                verdict.faults.append(f"I3: the log of {room} is not 1..{truth.last_seqs[room]}")
        for (room, cmid), seqs in truth.messages.items():
            if len(seqs) != 1:
                verdict.doubled += 1
                verdict.faults.append(f"I2: {cmid} in {room} has the seqs {seqs}")
        for (client, room), facts in self._shown.items():
            _judge_list(verdict, client, room, facts, self._since[client, room], truth)
        for (client, room, connection), facts in self._lines.items():
            if not self._rewound:
                _judge_line(verdict, f"{client}, connection {connection}", room, facts, truth)
        return verdict

    def _read(self, entry: Entry) -> None:
        verdict, where = self._verdict, (entry.get("client", ""), entry.get("room", ""))
        match entry["op"]:
            case "send":
                _judge_send(verdict, entry, self._truth, rewound=self._rewound)
            case "applied":
                verdict.applied += 1
                _judge_canary(verdict, entry, self._canaries)
                self._shown[where].append(entry)
            case "heard":
                verdict.heard += 1
                _judge_canary(verdict, entry, self._canaries)
                self._lines[*where, entry["connection"]].append(entry)
            case "reset":
                verdict.reloads += 1
                self._shown[where].clear()
                self._since[where] = entry["seq"]
            case "left":
                self._shown.pop(where, None)
                self._since.pop(where, None)
            case "connect":
                verdict.recoveries += bool(entry.get("recovered"))
            case "disconnect":
                verdict.disconnects += 1
            case _:
                pass


def _judge_send(verdict: Verdict, entry: Entry, truth: Truth, *, rewound: bool) -> None:
    if entry["status"] == "invoke":
        verdict.sends += 1
    elif entry["status"] == "fail":
        verdict.refused += 1
    elif entry["status"] == "ok":
        verdict.acked += 1
        stored = truth.messages.get((entry["room"], entry["cmid"]))
        if stored != [entry["seq"]] and not rewound:
            verdict.lost += not stored
            verdict.faults.append(
                f"I1: {entry['cmid']} was acked as {entry['seq']}, stored {stored}"
            )


def _judge_canary(verdict: Verdict, entry: Entry, canaries: dict[str, str]) -> None:
    content = entry.get("content")
    if content and not content.startswith(canaries[entry["client"]]):
        verdict.leaked += 1
        verdict.faults.append(f"I4: {entry['client']} was told {content!r}")


def _judge_list(
    verdict: Verdict, client: str, room: str, facts: list[Entry], since: int, truth: Truth
) -> None:
    """Everything that a reference client shows: exactly the log, from where it loaded the room."""
    shown = {fact["message"]: fact["content"] for fact in facts if "message" in fact}
    if old := [name for name, text in shown.items() if truth.texts.get(name) != text]:
        verdict.outdated += len(old)
        verdict.faults.append(f"I3: {client} shows another text than is stored of {old[:3]}")
    expected = [(seq, fact) for seq, fact, _ in truth.log.get(room, []) if seq > since]
    got = [(fact["seq"], fact["id"]) for fact in facts]
    if got == expected:
        return
    _count(verdict, [seq for seq, _ in got], [seq for seq, _ in expected])
    verdict.faults.append(
        f"I3: {client} shows {room} as {_short(got)}, the log has {_short(expected)} after {since}"
    )


def _judge_line(verdict: Verdict, who: str, room: str, facts: list[Entry], truth: Truth) -> None:
    """What one connection of a stock client was told: a piece of the log, without a hole."""
    got = [(fact["seq"], fact["id"]) for fact in facts]
    first, last = got[0][0], got[0][0] + len(got) - 1
    expected = [(seq, fact) for seq, fact, _ in truth.log.get(room, []) if first <= seq <= last]
    if got != expected:
        _count(verdict, [seq for seq, _ in got], [seq for seq, _ in expected])
        verdict.faults.append(f"I3: {who} was told {room} as {_short(got)}")


def _count(verdict: Verdict, got: list[int], expected: list[int]) -> None:
    verdict.lost += len(set(expected) - set(got))
    verdict.repeated += len(got) - len(set(got))
    verdict.disordered += sum(later < earlier for earlier, later in pairwise(got))


def _short(facts: list[tuple[int, str]]) -> str:
    seqs = [seq for seq, _ in facts]
    if not seqs:
        return "nothing"
    jumps = [f"{a}->{b}" for a, b in pairwise(seqs) if b != a + 1]
    return f"{seqs[0]}..{seqs[-1]} ({len(seqs)} facts; {', '.join(jumps[:5]) or 'whole'})"
