"""Which request is which: the ids that answers, refusals and log lines carry."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:@+/=-]{1,128}")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Trace:
    """`request_id` is echoed as `X-Request-Id`; `trace_id` stands in refusals and in the log."""

    request_id: str
    trace_id: str


def parent_of(headers: Mapping[str, str]) -> str | None:
    """Give the caller's `traceparent` where it is sane."""
    given = headers.get("traceparent", "")
    return given if _trace_id(given) is not None else None


def trace_of(headers: Mapping[str, str], own: str = "") -> Trace:
    """Take the caller's ids (`X-Request-Id`, `traceparent`) where they are sane, else make one.

    `own` is the trace that the request is part of, where it is traced.
    """
    given = headers.get("X-Request-Id", "")
    traced = _trace_id(headers.get("traceparent", ""))
    request_id = given if _REQUEST_ID.fullmatch(given) else traced or uuid4().hex
    return Trace(request_id, own or traced or request_id)


def _trace_id(traceparent: str) -> str | None:
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or not (int(found[1], 16) and int(found[2], 16)):
        return None
    return found[1]
