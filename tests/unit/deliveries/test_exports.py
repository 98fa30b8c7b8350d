"""What is read out of deliveries as a table."""

import csv
import io

from chatserver.deliveries.many import table_of


def test_what_a_spreadsheet_would_run_is_text() -> None:
    written = table_of([{"a": "=1+1", "b": "+x", "c": "-x", "d": "@x", "e": "x,y", "f": None}])
    [row] = csv.reader(io.StringIO(written.decode()))
    assert row == ["'=1+1", "'+x", "'-x", "'@x", "x,y", ""]
