"""`.env.example` is the list of settings that an operator reads."""

import re

from chatserver.settings import Settings
from tests.architecture.tree import ROOT

VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")


def example() -> list[str]:
    return (ROOT / ".env.example").read_text().splitlines()


def variables() -> dict[str, str]:
    matches = (VARIABLE.fullmatch(line) for line in example())
    return {found[1]: found[2] for found in matches if found}


def test_it_names_exactly_the_settings_there_are() -> None:
    names = [found[1] for line in example() if (found := VARIABLE.fullmatch(line))]
    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)


def test_every_variable_is_explained_by_the_comment_above_it() -> None:
    above = ""
    for line in example():
        if VARIABLE.fullmatch(line):
            assert re.fullmatch(r"# .{10,}", above), line
        above = line


def test_every_line_is_a_variable_a_comment_or_empty() -> None:
    odd = [
        line
        for line in example()
        if line and not line.startswith("# ") and not VARIABLE.fullmatch(line)
    ]
    assert odd == []


def test_no_secret_has_a_value() -> None:
    secrets = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if "Secret" in str(field.annotation)
    }
    assert {"OPERATOR_KEY", "KEY_PEPPER", "SECRET_KEYS"} <= secrets
    given = variables()
    assert {name: given[name] for name in secrets if given.get(name)} == {}


def test_only_the_environment_can_give_a_secret() -> None:
    # A default would be the same on every server that forgot to set its own.
    for name, field in Settings.model_fields.items():
        if "Secret" in str(field.annotation):
            default = field.get_default(call_default_factory=False)
            assert not default or default.__class__.__name__ == "PydanticUndefinedType", name
