"""`chatserver openapi`, `asyncapi`: prints what is written from the registry."""

import importlib
import pkgutil
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

import chatserver
from chatserver.operations import build_registry
from chatserver.transport.documents.asyncapi import asyncapi as describe_sockets
from chatserver.transport.documents.figures import metrics_page
from chatserver.transport.documents.markdown import errors_page, events_page
from chatserver.transport.documents.openapi import openapi as describe_rest


def openapi() -> None:
    """Print the OpenAPI 3.1 document of the REST API."""
    _print(describe_rest(build_registry()))


def asyncapi() -> None:
    """Print the AsyncAPI 3.0 document of the Socket.IO namespaces."""
    _print(describe_sockets(build_registry()))


def docs(
    directory: Annotated[Path, typer.Argument(help="Where the pages go.")] = Path("docs"),
) -> None:
    """Write the generated pages of docs/ anew from the code."""
    for name, page in pages().items():
        (directory / name).write_text(page, encoding="utf-8")


def pages() -> dict[str, str]:
    """Give the generated pages by file name."""
    registry = build_registry()
    # Of errors the page has all there are, wherever they are raised.
    for found in pkgutil.walk_packages(chatserver.__path__, "chatserver."):
        if found.name.endswith(".errors"):
            importlib.import_module(found.name)
    return {
        "errors.md": errors_page(),
        "events.md": events_page(registry),
        "metrics.md": metrics_page(),
    }


def _print(document: dict[str, Any]) -> None:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
