from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from chatserver.kernel.findings import issues_of, sentence
from chatserver.kernel.wire import Request


class Lamp(Request):
    watts: Annotated[int, Field(ge=1)]


class House(Request):
    number: int
    lamp: Lamp | None = None


def refused(given: object) -> ValidationError:
    with pytest.raises(ValidationError) as found:
        House.model_validate(given)
    return found.value


def test_each_field_is_named_and_the_input_is_not() -> None:
    issues = issues_of(refused({"number": "s3cret", "lamp": {"watts": 0}}))
    assert [issue["field"] for issue in issues] == ["number", "lamp.watts"]
    assert "s3cret" not in str(issues)


def test_what_is_to_be_an_object_is_called_so_and_no_class_of_ours_is_named() -> None:
    assert issues_of(refused({"number": 1, "lamp": 5})) == (
        {"field": "lamp", "issue": "must be a JSON object"},
    )
    assert [sentence(issue) for issue in issues_of(refused(5))] == ["must be a JSON object"]


def test_fields_stand_below_what_they_are_part_of_and_no_more_are_named_than_wanted() -> None:
    issues = issues_of(refused({"lamp": {"watts": 0}, "roof": 1}), "config", most=2)
    assert len(issues) == 2
    assert all(issue["field"].startswith("config.") for issue in issues)
