"""The one declarative list of what callers can do. Every door and both documents read it."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from chatserver.kernel import content
from chatserver.kernel.errors import (
    DomainError,
    PayloadInvalidError,
    ScopeMissingError,
    UnavailableError,
)
from chatserver.kernel.findings import issues_of
from chatserver.kernel.principal import Caller, Principal, Scope
from chatserver.kernel.wire import Answer, Request

Handler: TypeAlias = Callable[[Principal, Any], Awaitable[Answer]]
Method = TypeVar("Method", bound=Callable[..., Awaitable[Answer]])

# python-socketio answers pings only between commands of the stock engine; the client allows 45 s.
DEADLINE_S: Final = 4.0

OPERATOR: Final = frozenset({Caller.OPERATOR})
MASTER: Final = frozenset({Caller.MASTER})
USER: Final = frozenset({Caller.USER})
MASTER_OR_USER: Final = MASTER | USER


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that callers can do: a command on sockets, an operation in REST, or both."""

    name: str
    request: type[Request]
    response: type[Answer]
    callers: frozenset[Caller]
    scope: Scope | None
    errors: tuple[type[DomainError], ...]
    summary: str
    description: str = ""
    namespaces: tuple[str, ...] = ()
    # Longer than usual only for what no socket can ask for.
    deadline_s: float = DEADLINE_S
    handle: Handler

    @property
    def noun(self) -> str:
        """The group that documents list it under."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where REST finds an operation. Path members fill the request's fields of the same name."""

    method: str
    path: str
    operation: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class FactSpec:
    """A fact as callers see it. `data_model` is the shape of its `data`, only ever documented.

    `enveloped`: it comes as `{v, type, id, …, data}`, and not as its data alone.
    """

    name: str
    namespaces: tuple[str, ...]
    data_model: type[BaseModel]
    sequenced: bool
    summary: str
    enveloped: bool = True


def operation(
    name: str,
    request: type[Request],
    response: type[Answer],
    *,
    scope: Scope | None = None,
    callers: frozenset[Caller] = MASTER_OR_USER,
    errors: tuple[type[DomainError], ...] = (),
    deadline_s: float = DEADLINE_S,
) -> Callable[[Method], Method]:
    """Declare a method as an operation. Its docstring becomes its text in the documents."""

    def mark(method: Method) -> Method:
        summary, _, description = inspect.cleandoc(method.__doc__ or name).partition("\n\n")
        declared = Operation(
            name=name,
            request=request,
            response=response,
            callers=callers,
            scope=scope,
            errors=errors,
            summary=" ".join(summary.split()),
            description=description,
            deadline_s=deadline_s,
            handle=method,
        )
        method.__operation__ = declared  # type: ignore[attr-defined]  # read back by `declared_in`
        return method

    return mark


# On sockets the same thing is called a command; the declaration does not differ.
command = operation


def declared_in(holder: object, *, namespaces: tuple[str, ...] = ()) -> Iterator[Operation]:
    """Give the operations that the holder's class declares, bound to this instance."""
    for name, method in inspect.getmembers(type(holder), inspect.isfunction):
        declared: Operation | None = getattr(method, "__operation__", None)
        if declared is not None:
            yield replace(declared, handle=getattr(holder, name), namespaces=namespaces)


class Registry:
    """All operations, routes and facts. Filled by `app.py`, then only read.

    `auth_errors` are what `identify` may refuse a credential with; only the documents need them.
    """

    def __init__(self, *, auth_errors: tuple[type[DomainError], ...] = ()) -> None:
        self.operations: dict[str, Operation] = {}
        self.routes: list[Route] = []
        self.facts: dict[str, FactSpec] = {}
        self.auth_errors = auth_errors

    def add(
        self,
        holder: object,
        *,
        namespaces: tuple[str, ...] = (),
        commands: frozenset[str] | None = None,
        routes: tuple[Route, ...] = (),
    ) -> None:
        """Take all operations of a holder, and the routes that lead to them or to earlier ones.

        `commands`: which of them are commands in the namespaces; None: all of them.
        """
        for declared in declared_in(holder, namespaces=namespaces):
            found = declared
            if commands is not None and declared.name not in commands:
                found = replace(declared, namespaces=())
            if found.name in self.operations:
                msg = f"{found.name} is declared twice"
                raise ValueError(msg)
            self.operations[found.name] = found
        for route in routes:
            if route.operation not in self.operations:
                msg = f"{route.method} {route.path} leads to {route.operation}, which is unknown"
                raise ValueError(msg)
            self.routes.append(route)

    def add_facts(self, *facts: FactSpec) -> None:
        """Take facts that a feature announces."""
        for fact in facts:
            if fact.name in self.facts:
                msg = f"{fact.name} is declared twice"
                raise ValueError(msg)
            self.facts[fact.name] = fact

    def command(self, namespace: str, name: str) -> Operation | None:
        """Find a socket command of a namespace."""
        found = self.operations.get(name)
        return found if found is not None and namespace in found.namespaces else None


async def call(
    operation: Operation,
    principal: Principal,
    payload: Any,  # noqa: ANN401 - whatever was sent
) -> Answer:
    """Run an operation: may this caller, is the payload right, then the handler, within 4 s.

    Raises:
        DomainError: any refusal; `unavailable` also when the deadline passed (outcome unknown).
    """
    admit(operation, principal)
    return await run(operation, principal, parse(operation.request, payload))


def admit(operation: Operation, principal: Principal) -> None:
    """Let a caller pass who may run the operation.

    Raises:
        ScopeMissingError: this kind of credential may not, or the key lacks the scope.
    """
    if principal.caller not in operation.callers:
        raise ScopeMissingError(f"This takes {who(operation)}.")
    if operation.scope is not None:
        principal.require(operation.scope)


async def run(operation: Operation, principal: Principal, request: Request) -> Answer:
    """Run the handler of an operation, within its deadline: 4 s, for uploads more.

    Raises:
        DomainError: any refusal; `unavailable` also when the deadline passed (outcome unknown).
    """
    try:
        async with asyncio.timeout(operation.deadline_s):
            return await operation.handle(principal, request)
    except TimeoutError as error:
        raise UnavailableError from error


def parse(model: type[Request], payload: Any, *, as_text: bool = False) -> Request:  # noqa: ANN401
    """Check a payload against its model.

    Raises:
        PayloadInvalidError: every wrong field is named in `issues`; the input is never quoted.
    """
    if not isinstance(payload, dict):
        raise PayloadInvalidError.of("$", "must be one JSON object")
    content.check(payload)
    try:
        if as_text:
            return model.model_validate_strings(payload, strict=False)
        return model.model_validate(payload)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> PayloadInvalidError:
    """Translate pydantic's findings; at most 20, without the input."""
    issues = issues_of(error, most=20)
    return PayloadInvalidError(f"{issues[0]['field']}: {issues[0]['issue']}", issues=issues)


_CREDENTIALS: Final = {
    Caller.OPERATOR: "the operator key",
    Caller.MASTER: "a master key",
    Caller.USER: "a scoped key",
}


def who(operation: Operation) -> str:
    """Say in words which credentials an operation takes."""
    return " or ".join(said for caller, said in _CREDENTIALS.items() if caller in operation.callers)
