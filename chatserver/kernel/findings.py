"""What pydantic found wrong, in the words of our answers. Never the input: it may be a secret."""

from pydantic import ValidationError

from chatserver.kernel.errors import Issue

WHOLE = "$"
# Where pydantic names classes of ours.
_WORDS = {
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
}


def issues_of(error: ValidationError, *under: str, most: int | None = None) -> tuple[Issue, ...]:
    """Name each field, below `under`, and what is wrong with it; the whole is called `$`."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return tuple(
        {
            "field": ".".join((*under, *map(str, each["loc"])))[:200] or WHOLE,
            "issue": _WORDS.get(each["type"]) or each["msg"].removeprefix("Value error, "),
        }
        for each in found[:most]
    )


def sentence(issue: Issue) -> str:
    """Say one in a line."""
    return issue["issue"] if issue["field"] == WHOLE else f"{issue['field']}: {issue['issue']}"
