"""`docs/errors.md` and `docs/events.md`, for people."""

from typing import Any, Final

from chatserver.transport import refusals
from chatserver.transport.documents import catalogue
from chatserver.transport.documents.asyncapi import (
    commands_of,
    facts_of,
    namespaces_of,
    needs,
)
from chatserver.transport.documents.schemas import REF, Schema, Schemas
from chatserver.transport.registry import FactSpec, Operation, Registry

_GENERATED: Final = "<!-- Written from the code by `chatserver docs`; don't edit. -->"

_ABOUT_EVENTS: Final = (
    "Every command is acknowledged: `{ok: true, data}` or `{ok: false, error}`. Facts are"
    " `{v, type, id, room_id, epoch, seq, ts, actor, data, client_msg_id?}`; those without a"
    " `seq` are not in the log."
)


def errors_page() -> str:
    """List every code that a caller may meet. All modules must be loaded."""
    rows = [
        _error_row(
            error.code,
            catalogue.status_of(error),
            error.kind.value,
            meaning=catalogue.meaning_of(error),
            retryable=catalogue.is_retryable(error),
            declared="code" in vars(error),
        )
        for error in catalogue.every_error()
    ]
    bug = refusals.bug("")
    rows.append(
        _error_row(
            bug["code"], bug["status"], "bug", meaning=bug["message"], retryable=bug["retryable"]
        )
    )
    return _page(
        "Errors",
        "A refusal has one `code` on every door: in `application/problem+json`, in acks, in"
        " `CONNECT_ERROR`. Programs decide by the code; the status is REST's.",
        "",
        "| Code | Status | Kind | Retry helps | Meaning |",
        "| --- | --- | --- | --- | --- |",
        *sorted(rows),
    )


def events_page(registry: Registry) -> str:
    """List the commands and facts of every namespace."""
    schemas = Schemas(registry)
    lines = [_ABOUT_EVENTS]
    for namespace in namespaces_of(registry):
        lines += ["", f"## `{namespace}`"]
        for command in commands_of(registry, namespace):
            lines += _command(schemas, command)
        for fact in facts_of(registry, namespace):
            lines += _fact(schemas, fact)
    return _page("Commands and facts", *lines)


def _error_row(
    code: str, status: int, kind: str, *, meaning: str, retryable: bool, declared: bool = True
) -> str:
    # A refinement of a refusal shares its code, and an anchor may stand only once.
    anchor = f'<a id="{code}"></a>' if declared else ""
    return f"| {anchor}`{code}` | {status} | {kind} | {_yes(retryable)} | {_cell(meaning)} |"


def _command(schemas: Schemas, command: Operation) -> list[str]:
    codes = ", ".join(f"`{code}`" for code in sorted({error.code for error in command.errors}))
    lines = ["", f"### Command `{command.name}`", "", command.summary]
    if command.description:
        lines += ["", command.description]
    lines += ["", needs(command)]
    lines += _members("Payload", schemas, schemas.sent(command.request))
    lines += _members("Answer", schemas, schemas.given(command.response))
    return lines + (["", f"Errors: {codes}."] if codes else [])


def _fact(schemas: Schemas, fact: FactSpec) -> list[str]:
    logged = "has a `seq`" if fact.sequenced else "no `seq`"
    lines = ["", f"### Fact `{fact.name}` ({logged})", "", fact.summary]
    return lines + _members("Data", schemas, schemas.given(fact.data_model))


def _members(title: str, schemas: Schemas, reference: Schema) -> list[str]:
    whole = schemas.whole(reference)
    properties: dict[str, Schema] = whole.get("properties", {})
    if not properties:
        return ["", f"{title}: nothing."]
    required = set(whole.get("required", ()))
    return [
        "",
        f"| {title} | Type | Required | Meaning |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{name}` | {_cell(_type(each))} | {_yes(name in required)}"
            f" | {_cell(each.get('description', ''))} |"
            for name, each in properties.items()
        ),
    ]


def _type(schema: Schema) -> str:
    """Write a schema's type in a few words; the whole of it stands in the AsyncAPI document."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REF)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[union]))
    kind: Any = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{words} ({schema['format']})" if "format" in schema else words


def _page(title: str, *lines: str) -> str:
    return "\n".join([f"# {title}", "", _GENERATED, "", *lines]) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("\\\\|", "\\|")


def _yes(value: bool) -> str:  # noqa: FBT001 - it is what is asked
    return "yes" if value else "no"
