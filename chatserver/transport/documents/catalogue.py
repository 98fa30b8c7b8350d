"""What callers may be refused with: every error that is declared anywhere."""

from collections.abc import Iterator
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

from chatserver.kernel.errors import DomainError
from chatserver.transport import refusals

# Ids that stand in examples.
EXAMPLE_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def every_error() -> list[type[DomainError]]:
    """Give all refusals of the server's modules that are loaded, by code."""
    found = {error for error in _below(DomainError) if error.__module__.startswith("chatserver.")}
    return sorted(found, key=lambda each: (each.code, status_of(each), each.__name__))


def status_of(error: type[DomainError]) -> int:
    return int(refusals.STATUS[error.kind])


def is_retryable(error: type[DomainError]) -> bool:
    return error.kind in refusals.RETRYABLE


def meaning_of(error: type[DomainError]) -> str:
    """Say what an error means: its docstring, else its title."""
    said = vars(error).get("__doc__")
    return " ".join(cleandoc(said).split()) if said else error.title


def example_of(error: type[DomainError]) -> dict[str, Any]:
    """Give an error's problem document as a caller might get it."""
    return refusals.problem(refusals.refusal(error(), EXAMPLE_TRACE), error.title)


def example_of_bug() -> dict[str, Any]:
    return refusals.problem(refusals.bug(EXAMPLE_TRACE), "Internal error.")


def phrase(status: int) -> str:
    return HTTPStatus(status).phrase


def _below(error: type[DomainError]) -> Iterator[type[DomainError]]:
    for child in error.__subclasses__():
        yield child
        yield from _below(child)
