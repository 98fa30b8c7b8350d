"""`chatserver openapi`, `asyncapi`: prints what is written from the registry."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from chatserver.operations import build_registry
from chatserver.transport.documents.asyncapi import asyncapi as describe_sockets
from chatserver.transport.documents.markdown import errors_page, events_page
from chatserver.transport.documents.openapi import openapi as describe_rest


def openapi() -> None:
    """Print the OpenAPI 3.1 document of the REST API."""
    _print(describe_rest(build_registry()))


def asyncapi() -> None:
    """Print the AsyncAPI 3.0 document of the Socket.IO namespaces."""
    _print(describe_sockets(build_registry()))


def docs(
    directory: Annotated[Path, typer.Argument(help="Where errors.md and events.md go.")] = Path(
        "docs"
    ),
) -> None:
    """Write docs/errors.md and docs/events.md anew from the code."""
    for name, page in pages().items():
        (directory / name).write_text(page, encoding="utf-8")


def pages() -> dict[str, str]:
    """Give the generated pages by file name; building the registry loads every module."""
    registry = build_registry()
    return {"errors.md": errors_page(), "events.md": events_page(registry)}


def _print(document: dict[str, Any]) -> None:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
