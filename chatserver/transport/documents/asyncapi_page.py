"""The AsyncAPI document as one page for people: no script, no other file."""

import json
from collections.abc import Iterator
from typing import Any, Final

from chatserver.transport.documents.markup import Html, inline, join, paragraphs, tag
from chatserver.transport.documents.schemas import REF, Schema

STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#2563eb}
@media(prefers-color-scheme:dark){:root{--accent:#7aa7ff}}
body{font:1rem/1.55 system-ui,sans-serif;margin:0;display:grid;
grid-template-columns:minmax(14rem,19rem) minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1rem;box-sizing:border-box;
border-right:1px solid var(--line);font-size:.9rem}
nav ul{list-style:none;margin:0 0 1rem;padding:0}nav h2{font-size:1rem;margin:.5rem 0}
main{padding:1.5rem 2rem;max-width:62rem}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
section section{border-top:1px solid var(--line);padding:.5rem 0 1rem}
h3{font-size:1.15rem;margin:.6rem 0}h4{margin:.9rem 0 .3rem;font-size:.95rem}
code,pre{font:.875em/1.45 ui-monospace,monospace}
code{background:var(--soft);padding:.1em .3em;border-radius:3px}
pre{background:var(--soft);padding:.8rem;overflow:auto;border-radius:6px}
pre code{background:none;padding:0}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;
border-top:1px solid var(--line)}
summary{cursor:pointer;color:var(--accent);margin:.4rem 0}
.kind{font-size:.72rem;text-transform:uppercase;letter-spacing:.06em;border:1px solid var(--line);
border-radius:9px;padding:.1rem .5rem;margin-right:.5rem;vertical-align:middle}
@media(max-width:50rem){body{display:block}nav{position:static;height:auto;border:0}main{padding:1rem}}
"""


def asyncapi_page(document: dict[str, Any]) -> Html:
    """Write the body of the page: servers, the commands and facts of each namespace, shapes."""
    namespaces = [
        (name, list(_commands(document, name)), list(_facts(document, name)))
        for name in document["channels"]
    ]
    parts = [_contents(namespaces, document), _about(document)]
    for name, commands, facts in namespaces:
        messages = [_command(document, name, each) for each in commands]
        messages += [_fact(document, name, each) for each in facts]
        parts.append(
            tag("section", tag("h2", document["channels"][name]["address"]), *messages, id=name)
        )
    shapes = (_shape(name, each) for name, each in document["components"]["schemas"].items())
    parts.append(tag("section", tag("h2", "Shapes"), *shapes, id="shapes"))
    return join(parts[0], tag("main", *parts[1:]))


def _commands(document: dict[str, Any], namespace: str) -> Iterator[dict[str, Any]]:
    for operation in document["operations"].values():
        if operation["action"] == "receive" and _last(operation["channel"]) == namespace:
            yield operation


def _facts(document: dict[str, Any], namespace: str) -> Iterator[str]:
    for operation in document["operations"].values():
        if operation["action"] == "send" and _last(operation["channel"]) == namespace:
            yield from (_last(message) for message in operation["messages"])


def _contents(
    namespaces: list[tuple[str, list[dict[str, Any]], list[str]]], document: dict[str, Any]
) -> Html:
    parts = []
    for name, commands, facts in namespaces:
        names = [*(each["title"] for each in commands), *facts]
        links = (
            tag("li", tag("a", each.removesuffix(".fact"), href=f"#{name}-{each}"))
            for each in names
        )
        parts += [tag("h2", document["channels"][name]["address"]), tag("ul", *links)]
    parts.append(tag("h2", tag("a", "Shapes", href="#shapes")))
    return tag("nav", *parts)


def _about(document: dict[str, Any]) -> Html:
    info = document["info"]
    servers = (
        tag(
            "section",
            tag("h3", f"{each.get('title', 'Socket.IO')}: ", tag("code", each["pathname"])),
            paragraphs(each["description"]),
        )
        for each in document["servers"].values()
    )
    return tag(
        "section",
        tag("h1", f"{info['title']}: commands and facts"),
        paragraphs(info["description"]),
        tag(
            "p",
            "This page is written from ",
            tag("a", "asyncapi.json", href="asyncapi.json"),
            f", version {info['version']}. The same operations over HTTP: ",
            tag("a", "REST", href="docs"),
            ". What may be refused: ",
            tag("a", "errors", href="docs/errors"),
            ".",
        ),
        *servers,
    )


def _command(document: dict[str, Any], namespace: str, operation: dict[str, Any]) -> Html:
    sent = _message(document, operation["messages"][0])
    ack = _message(document, operation["reply"]["messages"][0])
    data = ack["payload"]["oneOf"][0]["properties"]["data"]
    codes = ack["x-errors"]
    refused = [
        tag("p", "Errors: ", *(join(tag("code", code), Html(" ")) for code in codes))
    ] * bool(codes)
    return tag(
        "section",
        tag("h3", tag("span", "command", class_="kind"), tag("code", operation["title"])),
        paragraphs(sent["summary"]),
        paragraphs(sent["description"]),
        _members("Payload", document, sent["payload"]),
        _examples(sent),
        _members("Answer", document, data),
        _examples(ack, "The ack"),
        *refused,
        id=f"{namespace}-{operation['title']}",
    )


def _fact(document: dict[str, Any], namespace: str, name: str) -> Html:
    fact = document["components"]["messages"][name]
    kind = "fact with a seq" if fact["x-sequenced"] else "fact"
    data = fact["payload"].get("properties", {}).get("data", fact["payload"])
    return tag(
        "section",
        tag("h3", tag("span", kind, class_="kind"), tag("code", fact["name"])),
        paragraphs(fact["summary"]),
        _members("Data", document, data),
        _examples(fact),
        id=f"{namespace}-{name}",
    )


def _shape(name: str, schema: Schema) -> Html:
    return tag(
        "section",
        tag("h3", name),
        paragraphs(schema.get("description", "")),
        _members("Member", {}, schema) if schema.get("properties") else tag("p", _type(schema)),
        id=f"shape-{name}",
    )


def _members(title: str, document: dict[str, Any], schema: Schema) -> Html:
    if "$ref" in schema:
        schema = document["components"]["schemas"][_last(schema)]
    properties: dict[str, Schema] = schema.get("properties", {})
    if not properties:
        return tag("p", f"{title}: nothing.")
    required = schema.get("required", ())
    head = tag("tr", *(tag("th", each) for each in (title, "Type", "Required", "Meaning")))
    rows = (
        tag(
            "tr",
            tag("td", tag("code", name)),
            tag("td", _type(each)),
            tag("td", "yes" if name in required else "no"),
            tag("td", inline(each.get("description", ""))),
        )
        for name, each in properties.items()
    )
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _type(schema: Schema) -> Html:
    if "$ref" in schema:
        return tag("a", _last(schema), href=f"#shape-{_last(schema)}")
    if "const" in schema:
        return tag("code", json.dumps(schema["const"]))
    if "enum" in schema:
        return _either([tag("code", str(each)) for each in schema["enum"]])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return _either([_type(each) for each in schema[union]])
    kind: Any = schema.get("type", "any")
    if kind == "array":
        return join("list of ", _type(schema.get("items", {})))
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return join(f"{words} ({schema['format']})" if "format" in schema else words)


def _either(types: list[Html]) -> Html:
    said = list(dict.fromkeys(types))
    return join(said[0], *(join(" or ", each) for each in said[1:]))


def _examples(message: dict[str, Any], title: str = "Example") -> Html:
    return join(
        *(
            tag(
                "details",
                tag("summary", title),
                tag("pre", tag("code", json.dumps(each["payload"], indent=2, ensure_ascii=False))),
            )
            for each in message.get("examples", ())
        )
    )


def _message(document: dict[str, Any], reference: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["messages"][_last(reference)]
    return found


def _last(reference: dict[str, Any]) -> str:
    """Give the name that a reference ends with; names of messages have dots, never slashes."""
    return str(reference["$ref"]).removeprefix(REF).rpartition("/")[2]
