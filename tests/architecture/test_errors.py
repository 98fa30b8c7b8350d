"""Every refusal can be told to every caller, and told from every other."""

import re

from chatserver.kernel.errors import DomainError, ErrorKind
from chatserver.transport.refusals import INTERNAL, STATUS, refusal
from tests.architecture.tree import import_all


def all_errors() -> list[type[DomainError]]:
    import_all("chatserver", "workers")
    found: list[type[DomainError]] = []
    waiting = [DomainError]
    while waiting:
        children = waiting.pop().__subclasses__()
        waiting += children
        found += [child for child in children if not child.__module__.startswith("tests.")]
    return found


def test_every_kind_has_its_status() -> None:
    assert set(STATUS) == set(ErrorKind)


def test_every_error_has_a_kind_a_code_and_a_sentence() -> None:
    errors = all_errors()
    assert len(errors) > 10
    for error in errors:
        assert isinstance(error.kind, ErrorKind), error
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", error.code), error
        assert error.title, error
        assert error.__name__.endswith("Error"), error


def test_no_two_errors_share_a_code() -> None:
    # Whoever inherits a code refines the same refusal; whoever declares one, declares a new one.
    declared: dict[str, str] = {INTERNAL: "a bug"}
    for error in all_errors():
        if "code" in vars(error):
            assert error.code not in declared, (error.code, error.__name__)
            declared[error.code] = error.__name__


def test_every_error_can_be_said_without_more_than_its_class_knows() -> None:
    for error in all_errors():
        said = refusal(error(), "trace")
        assert said["code"] == error.code
        assert said["message"]
