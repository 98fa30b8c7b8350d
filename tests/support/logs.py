"""A room's log as the server keeps it, and what of it concerns whom."""

from typing import Any

from tests.support.clients import Api


async def log_of(api: Api, room_id: str) -> list[dict[str, Any]]:
    """Read all facts of a room; they must be numbered from 1 without a hole."""
    facts: list[dict[str, Any]] = []
    complete = False
    while not complete:
        after = facts[-1]["seq"] if facts else 0
        page = (await api.get(f"/rooms/{room_id}/events", after_seq=after, limit=300)).ok()
        facts += page["events"]
        complete = page["complete"]
    assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
    return facts


def stays_of(
    log: list[dict[str, Any]], name: str, *, was_first: bool
) -> tuple[list[list[int]], bool]:
    """Give the seqs of each stay of a person, coming and going included, and whether he is in.

    `was_first`: he was among the members that the room was made with, whom its log doesn't name.
    """
    stays: list[list[int]] = []
    is_in = False
    for fact in log:
        people = fact["data"].get("user_ids") or [fact["data"].get("user_id")]
        comes = fact["type"] == "member.joined" and name in people
        if not is_in and (comes or (was_first and fact["type"] == "room.created")):
            is_in = True
            stays.append([])
        if is_in:
            stays[-1].append(fact["seq"])
        if fact["type"] == "member.left" and name in people:
            is_in = False
    return stays, is_in
