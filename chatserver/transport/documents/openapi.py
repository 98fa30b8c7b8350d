"""OpenAPI 3.1 of the REST door, from the registry."""

import re
from http import HTTPStatus
from typing import Any, Final

from chatserver.kernel.errors import (
    DomainError,
    IdempotencyConflictError,
    IdempotencyRunningError,
    PayloadInvalidError,
    PayloadTooLargeError,
    RateLimitedError,
    ScopeMissingError,
    UnavailableError,
)
from chatserver.kernel.wire import Answer, EventStream, Followed, Lines, UploadRequest
from chatserver.transport.answers import EVENTS, LINES, PROBLEM
from chatserver.transport.documents import catalogue, fixed
from chatserver.transport.documents.examples import Examples
from chatserver.transport.documents.outside import OUTSIDE, TAGS
from chatserver.transport.documents.schemas import Schema, Schemas
from chatserver.transport.errors import (
    KeyInQueryError,
    MalformedRequestError,
    MediaTypeError,
    OriginRefusedError,
    SlowBodyError,
)
from chatserver.transport.http import PREFIX, QUERY_METHODS
from chatserver.transport.idempotency import WRITES
from chatserver.transport.registry import Operation, Registry, Route, who
from chatserver.transport.uploads import FORM

_ALWAYS: Final = (
    PayloadInvalidError,
    KeyInQueryError,
    MalformedRequestError,
    OriginRefusedError,
    ScopeMissingError,
    RateLimitedError,
    UnavailableError,
)
_OF_BODIES: Final = (PayloadTooLargeError, MediaTypeError, SlowBodyError)
_OF_WRITES: Final = (IdempotencyConflictError, IdempotencyRunningError)
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


def openapi(registry: Registry) -> dict[str, Any]:
    """Describe every route of the registry, and the health paths."""
    return _Writer(registry).document()


class _Writer:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._schemas = Schemas(registry)
        self._examples: dict[str, Any] = {}
        self._made = Examples(self._schemas.components)
        self._ids: set[str] = set()

    def document(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for route in self._registry.routes:
            operation = self._registry.operations[route.operation]
            paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = self._entry(
                route, operation
            )
        nouns = sorted(
            {self._registry.operations[each.operation].noun for each in self._registry.routes}
        )
        return {
            "openapi": "3.1.0",
            "info": fixed.INFO,
            "servers": [{"url": "/"}],
            "tags": [{"name": noun} for noun in (*nouns, *TAGS)],
            "security": [{"bearer": []}, {"apiKey": []}],
            "paths": dict(sorted((paths | OUTSIDE).items())),
            "components": {
                "schemas": self._schemas.used_by(paths) | fixed.SCHEMAS,
                "examples": dict(sorted(self._examples.items())),
                "headers": fixed.HEADERS,
                "parameters": fixed.PARAMETERS,
                "securitySchemes": fixed.SECURITY,
            },
        }

    def _entry(self, route: Route, operation: Operation) -> dict[str, Any]:
        in_path = _PLACEHOLDER.findall(route.path)
        request = self._schemas.sent(operation.request)
        takes_query = route.method in QUERY_METHODS
        parameters = self._parameters(request, in_path, takes_query=takes_query)
        if route.method in WRITES:
            parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
        entry: dict[str, Any] = {
            "operationId": self._id(route, operation),
            "tags": [operation.noun],
            "summary": operation.summary,
            "description": _described(operation),
            "security": _security(operation),
            "x-callers": sorted(caller.value for caller in operation.callers),
            "parameters": parameters,
        }
        if operation.scope is not None:
            entry["x-scope"] = operation.scope.value
        body = None if takes_query else self._body(operation, request, in_path)
        if body is not None:
            entry["requestBody"] = body
        entry["responses"] = self._answers(route, operation) | self._refusals(
            route, operation, has_body=not takes_query
        )
        return entry

    def _id(self, route: Route, operation: Operation) -> str:
        # An operation with several routes: the first has its name, the others say their method.
        for name in (
            operation.name,
            f"{operation.name}.{route.method.lower()}",
            f"{operation.name}.{route.method.lower()}{route.path}",
        ):
            if name not in self._ids:
                self._ids.add(name)
                return name
        msg = f"{route.method} {route.path} is there twice"
        raise ValueError(msg)

    def _parameters(
        self, request: Schema, in_path: list[str], *, takes_query: bool
    ) -> list[dict[str, Any]]:
        whole = self._schemas.whole(request)
        properties: dict[str, Schema] = whole.get("properties", {})
        required = set(whole.get("required", ()))
        found = [self._parameter(name, "path", properties[name], required=True) for name in in_path]
        if takes_query:
            found += [
                self._parameter(name, "query", schema, required=name in required)
                for name, schema in properties.items()
                if name not in in_path
            ]
        return found

    def _parameter(
        self, name: str, place: str, schema: Schema, *, required: bool
    ) -> dict[str, Any]:
        example = self._made.member(name, schema)
        schema = dict(schema)
        description = schema.pop("description", None)
        found = {"name": name, "in": place, "required": required, "schema": schema}
        if required:
            found["example"] = example
        return found | ({"description": description} if description else {})

    def _body(
        self, operation: Operation, request: Schema, in_path: list[str]
    ) -> dict[str, Any] | None:
        if not self._schemas.whole(request).get("properties"):
            return None
        schema = self._schemas.without(request, in_path, f"{self._schemas.name(request)}Body")
        if schema is None:
            return None
        required = bool(self._schemas.whole(schema).get("required"))
        example = self._made.sent(request, without=in_path)
        content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
        if issubclass(operation.request, UploadRequest):
            content[FORM] = {"schema": _with_files(self._schemas.whole(schema))}
        return {"required": required, "content": content}

    def _answers(self, route: Route, operation: Operation) -> dict[str, Any]:
        schema = self._schemas.given(operation.response)
        headers = dict(fixed.ANSWERED)
        if route.method in WRITES:
            headers["Idempotency-Replayed"] = {"$ref": "#/components/headers/IdempotencyReplayed"}
        example = self._made.given(schema)
        content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
        if issubclass(operation.response, Lines):
            kind = EVENTS if issubclass(operation.response, EventStream) else LINES
            content = {kind: fixed.STREAMED[kind]}
        if issubclass(operation.response, Followed):
            content[EVENTS] = fixed.STREAMED[EVENTS]
        statuses = {route.status: catalogue.phrase(route.status)}
        if route.status == HTTPStatus.ACCEPTED and issubclass(operation.response, Followed):
            statuses[int(HTTPStatus.CREATED)] = "Done already; nothing follows"
        if (
            route.status == HTTPStatus.CREATED
            and operation.response.is_repeat is not Answer.is_repeat
        ):
            statuses[200] = "It was there already"
        return {
            str(status): {"description": said, "headers": headers}
            | ({"content": content} if status != HTTPStatus.NO_CONTENT else {})
            for status, said in statuses.items()
        }

    def _refusals(self, route: Route, operation: Operation, *, has_body: bool) -> dict[str, Any]:
        errors: dict[type[DomainError], None] = dict.fromkeys(
            (*operation.errors, *self._registry.auth_errors, *_ALWAYS)
        )
        if has_body:
            errors |= dict.fromkeys(_OF_BODIES)
        if route.method in WRITES:
            errors |= dict.fromkeys(_OF_WRITES)
        by_status: dict[int, list[type[DomainError]]] = {}
        for error in errors:
            by_status.setdefault(catalogue.status_of(error), []).append(error)
        found = {
            str(status): self._problem(status, [self._example(error) for error in group])
            for status, group in sorted(by_status.items())
        }
        self._examples["internal.error"] = {"value": catalogue.example_of_bug()}
        return found | {"500": self._problem(500, ["internal.error"])}

    def _problem(self, status: int, examples: list[str]) -> dict[str, Any]:
        refs = {name: {"$ref": f"#/components/examples/{name}"} for name in examples}
        return {
            "description": f"{catalogue.phrase(status)}: "
            + ", ".join(f"`{name}`" for name in refs),
            "headers": fixed.ANSWERED | fixed.REFUSED.get(status, {}),
            "content": {
                PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": refs}
            },
        }

    def _example(self, error: type[DomainError]) -> str:
        # A class without a code of its own refines a refusal: same code, other status.
        refined = "code" not in vars(error)
        name = f"{error.code}.{catalogue.status_of(error)}" if refined else error.code
        self._examples[name] = {
            "summary": catalogue.meaning_of(error),
            "value": catalogue.example_of(error),
        }
        return name


def _with_files(schema: Schema) -> Schema:
    """Describe the form of a request that may come with files."""
    file = {"type": "string", "format": "binary", "description": "A file; many are allowed."}
    files = {"type": "array", "items": file}
    return {"type": "object", "properties": {**schema["properties"], "file": files}} | {
        "required": [*schema.get("required", ()), "file"]
    }


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    scopes = [operation.scope.value] if operation.scope is not None else []
    return [{"bearer": scopes}, {"apiKey": scopes}]


def _described(operation: Operation) -> str:
    takes = f"Takes {who(operation)}."
    if operation.scope is not None:
        takes += f" A scoped key needs the scope `{operation.scope.value}`."
    return f"{operation.description}\n\n{takes}".strip()
