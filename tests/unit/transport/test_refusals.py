"""Whatever a refusal has to say, no door leaves out which field it is about."""

from chatserver.chat.errors import MessageTooLongError
from chatserver.kernel.errors import Issue, PayloadInvalidError
from chatserver.transport.refusals import problem, refusal

ISSUE: Issue = {"field": "content", "issue": "has more than 5 bytes"}


def test_fields_alone_are_the_details() -> None:
    said = refusal(PayloadInvalidError.of("content", "has more than 5 bytes"), "t")
    assert said["details"] == [ISSUE]
    assert problem(said, "x")["errors"] == [ISSUE]
    assert "details" not in problem(said, "x")


def test_fields_stand_beside_what_else_there_is_to_say() -> None:
    said = refusal(MessageTooLongError(issues=(ISSUE,), max=5, unit="bytes"), "t")
    assert said["details"] == {"max": 5, "unit": "bytes", "errors": [ISSUE]}
    shown = problem(said, "x")
    assert shown["errors"] == [ISSUE]
    assert shown["details"] == {"max": 5, "unit": "bytes"}


def test_without_fields_only_that_is_said() -> None:
    said = refusal(MessageTooLongError(max=5), "t")
    assert said["details"] == {"max": 5}
    assert problem(said, "x")["errors"] == []
