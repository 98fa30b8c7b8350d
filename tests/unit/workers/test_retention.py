"""docs/retention.md says of every table how long its rows stay, and says it as it is."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Table

from chatserver.infra.job_kinds import KINDS
from chatserver.tables import METADATA
from chatserver.webhooks.endpoints.policies import ATTEMPTS_KEPT_DAYS, KEPT_DAYS
from workers import records
from workers.schedule import PERIODIC

PAGE = (Path(__file__).parents[3] / "docs" / "retention.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE)
# Told in a sentence below the tables.
SINGLE = {"cluster_generation"}
# Done when somebody asks for it, and not by the clock.
ASKED_FOR = {"users.erase", "rooms.purge", "documents.purge"}
_TEXTS = [str(each) for each in (*records._AGED, records._RETIRED)]
_AGE = re.compile(r"interval '(\d+) (day|hour)s?'")


def test_every_table_is_there_once() -> None:
    named = [table for table, _, _ in ROWS]
    assert len(named) == len(set(named))
    assert set(named) | SINGLE == set(METADATA.tables)


@pytest.mark.parametrize(("table", "kept", "by"), ROWS)
def test_what_removes_it_is_there(table: str, kept: str, by: str) -> None:
    if by == "nobody":
        assert not cascades(METADATA.tables[table])
        return
    name = by.removeprefix("with ").strip("`")
    if by.startswith("with "):
        assert name in cascades(METADATA.tables[table])
        return
    assert name in KINDS
    assert name in {each.kind.name for each in PERIODIC} | ASKED_FOR
    if name == "records.trim":
        deletes = [text for text in _TEXTS if f"delete from {table} " in text]
        assert len(deletes) == 1
        [told] = re.findall(r"(\d+) (day|hour)s", kept)[:1] or [None]
        if told is not None:
            assert told in _AGE.findall(deletes[0])


def test_the_days_of_deliveries_are_those_of_the_code() -> None:
    told = {table: kept for table, kept, _ in ROWS}
    for table in ("delivery", "webhook_event", "delivery_target"):
        assert f"{KEPT_DAYS} days" in told[table]
    for table in ("delivery", "delivery_attempt"):
        assert f"{ATTEMPTS_KEPT_DAYS} days" in told[table]


def test_no_table_is_trimmed_that_the_page_does_not_name() -> None:
    trimmed = {name for text in _TEXTS for name in re.findall(r"delete from (\w+) ", text)}
    by_page = {table for table, _, by in ROWS if by == "`records.trim`"}
    assert trimmed == by_page


def cascades(table: Table) -> set[str]:
    return {
        key.elements[0].column.table.name
        for key in table.foreign_key_constraints
        if key.ondelete == "CASCADE"
    }
