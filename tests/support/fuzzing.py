"""Requests that nobody wrote, made from the OpenAPI document, and answers held against it."""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from chatserver.kernel.principal import Caller
from chatserver.transport.http import PREFIX
from chatserver.transport.registry import Operation, Route

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Whoever runs these on his own can't go on: the key, the person or the tenant that asks is gone.
ENDING: Final = frozenset(
    {"client.disable", "client.update", "client_key.delete", "client_key.rotate", "user.erase"}
    | {"user.revoke", "user_key.delete", "user_key.revoke"}
)
MODES: Final = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
# An answer that takes longer is none.
WAIT_S: Final = 30


class Fuzzer:
    """Asks one server what its own document allows, and a little of what it forbids.

    `keys` has a key of each kind of caller, `known` values of path members by route and name.
    """

    def __init__(
        self,
        document: dict[str, Any],
        url: str,
        keys: Mapping[Caller, str],
        known: Mapping[tuple[str, str], str],
    ) -> None:
        self._schema = schemathesis.openapi.from_dict(document)
        self._url = url
        self._keys = keys
        self._known = known
        self._session = requests.Session()
        self.asked = 0

    def ask(self, route: Route, operation: Operation, *, times: int, seed: int) -> list[str]:
        """Send some requests right in form, and some wrong; say what came that is not documented.

        Half of the right ones name things that are there.
        """
        found: list[str] = []
        for mode in MODES:
            for number, case in enumerate(self._cases(route, mode, times, seed)):
                is_right = mode is GenerationMode.POSITIVE
                if is_right and number % 2 == 0 and operation.name not in ENDING:
                    self._name_known(case, route)
                for caller in sorted(operation.callers):
                    found += self._held(case, caller)
        return found

    def _cases(self, route: Route, mode: GenerationMode, times: int, seed: int) -> list[Case[Any]]:
        made: list[Case[Any]] = []
        operation = self._schema[PREFIX + route.path][route.method]

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=times,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def collect(case: Case[Any]) -> None:
            made.append(case)

        # Some operations have nothing that could be wrong.
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):
            collect()
        return made

    def _name_known(self, case: Case[Any], route: Route) -> None:
        for name in case.path_parameters:
            value = self._known.get((route.path, name))
            if value is not None:
                case.path_parameters[name] = value

    def _held(self, case: Case[Any], caller: Caller) -> list[str]:
        self.asked += 1
        headers = {"Authorization": f"Bearer {self._keys[caller]}"}
        answer = case.call(
            base_url=self._url, session=self._session, headers=headers, timeout=WAIT_S
        )
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as failures:
            wrong = "; ".join(str(each) for each in failures.exceptions)
            return [f"{case.as_curl_command(headers={})}\n{answer.status_code}: {wrong}"]
        return []
