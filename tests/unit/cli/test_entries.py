from collections.abc import Callable
from typing import Any

import pytest
import typer

from chatserver.cli.program import ENTRIES, Entry


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_list_says_of_each_command_what_it_says_of_itself(entry: Entry) -> None:
    found: Any = entry.load()
    if isinstance(found, typer.Typer):
        assert entry.help == found.info.help
    else:
        assert isinstance(found, Callable)  # type: ignore[arg-type]
        assert entry.help == (found.__doc__ or "").partition("\n\n")[0]
