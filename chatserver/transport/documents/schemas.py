"""The JSON schemas of all payloads, from their pydantic models, as components of a document."""

import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from chatserver.transport.registry import Registry

Schema: TypeAlias = dict[str, Any]
Mode: TypeAlias = Literal["validation", "serialization"]

REF: Final = "#/components/schemas/"


_IN_A_FEATURE: Final = re.compile(r"(?:\w+\.)*(\w+)\.\w+\.(\w+)")


class _Named(GenerateJsonSchema):
    """Gives names that read well in generated clients, and no titles that repeat a field's name."""

    def normalize_name(self, name: str) -> str:
        # Two classes of one name are told apart by their features: `ApiKeysKeyOut`.
        short = _IN_A_FEATURE.sub(lambda found: found[1].title().replace("_", "") + found[2], name)
        readable = short.replace("[", "Of").replace(",", "And").replace("]", "")
        return re.sub(r"[^A-Za-z0-9_-]", "_", readable)

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's
        return False


class Schemas:
    """All models of a registry: what callers send, what they get, what they are told."""

    def __init__(self, registry: Registry) -> None:
        wanted: dict[tuple[type[BaseModel], Mode], None] = {}
        for operation in registry.operations.values():
            wanted[operation.request, "validation"] = None
            wanted[operation.response, "serialization"] = None
        for fact in registry.facts.values():
            wanted[fact.data_model, "serialization"] = None
        self._refs, made = models_json_schema(
            list(wanted), ref_template=REF + "{model}", schema_generator=_Named
        )
        self.components: dict[str, Schema] = dict(made.get("$defs", {}))
        for schema in self.components.values():
            schema.pop("title", None)

    def sent(self, model: type[BaseModel]) -> Schema:
        """Refer to what a caller sends."""
        return dict(self._refs[model, "validation"])

    def given(self, model: type[BaseModel]) -> Schema:
        """Refer to what a caller gets."""
        return dict(self._refs[model, "serialization"])

    def whole(self, reference: Schema) -> Schema:
        """Follow a reference; a schema that is none is its own whole."""
        target = reference.get("$ref")
        return self.components[target.removeprefix(REF)] if target else reference

    def name(self, reference: Schema) -> str:
        return str(reference["$ref"]).removeprefix(REF)

    def without(self, reference: Schema, members: Iterable[str], name: str) -> Schema | None:
        """Refer to a schema without some members; None when nothing is left of it."""
        whole = self.whole(reference)
        gone = set(members)
        properties = {key: each for key, each in whole["properties"].items() if key not in gone}
        if not properties:
            return None
        if not gone:
            return reference
        left = deepcopy(whole) | {"properties": properties}
        left["required"] = [key for key in whole.get("required", ()) if key not in gone]
        if not left["required"]:
            del left["required"]
        wanted, number = name, 1
        while self.components.setdefault(name, left) != left:
            number += 1
            name = f"{wanted}{number}"
        return {"$ref": REF + name}

    def used_by(self, document: Any) -> dict[str, Schema]:  # noqa: ANN401 - any part of a document
        """Give the components that a document refers to, directly or through others."""
        used: dict[str, Schema] = {}
        waiting = list(_references(document))
        while waiting:
            name = waiting.pop()
            if name not in used and name in self.components:  # the fixed ones come from elsewhere
                used[name] = self.components[name]
                waiting += _references(used[name])
        return dict(sorted(used.items()))


def _references(part: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(part, dict):
        target = part.get("$ref")
        if isinstance(target, str) and target.startswith(REF):
            yield target.removeprefix(REF)
        for each in part.values():
            yield from _references(each)
    elif isinstance(part, list):
        for each in part:
            yield from _references(each)
