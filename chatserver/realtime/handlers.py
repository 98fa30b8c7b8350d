"""Which handler an event belongs to, found as python-socketio finds it but for its loopholes."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import socketio

Handler: TypeAlias = Callable[..., Any]

CATCH_ALL: Final = "*"
_LIFECYCLE: Final = frozenset({"connect", "disconnect"})


def find(
    handlers: Mapping[str, Mapping[str, Handler]],
    classes: Mapping[str, Any],
    event: str,
    namespace: str,
    args: tuple[Any, ...],
) -> tuple[Handler | None, tuple[Any, ...]]:
    """Find a function or a method, and give the arguments that it takes.

    A client can't address a catch-all by its own name, and a class that lacks a method lacks it.
    """
    for place, before in ((namespace, ()), (CATCH_ALL, (namespace,))):
        found = handlers.get(place, {})
        if event != CATCH_ALL and event in found:
            return found[event], (*before, *args)
        if event not in _LIFECYCLE and CATCH_ALL in found:
            return found[CATCH_ALL], (event, *before, *args)
    for place, before in ((namespace, ()), (CATCH_ALL, (namespace,))):
        target = classes.get(place)
        if target is None:
            continue
        if type(target).trigger_event is not socketio.AsyncNamespace.trigger_event:
            return target.trigger_event, (event, *before, *args)
        method = getattr(target, f"on_{event}", None)
        return method, (*before, *args)
    return None, args


async def run(handler: Handler, args: tuple[Any, ...]) -> Any:
    answer = handler(*args)
    return await answer if isinstance(answer, Awaitable) else answer


async def run_lifecycle(handler: Handler, args: tuple[Any, ...]) -> Any:
    """Run a connect or disconnect handler, which may leave out its last argument.

    It is looked at, not tried: a TypeError of the handler's own never runs it twice.
    """
    return await run(handler, args if _takes(handler, len(args)) else args[:-1])


@lru_cache(maxsize=1024)
def _takes(handler: Handler, number: int) -> bool:
    try:
        inspect.signature(handler).bind(*range(number))
    except TypeError:
        return False
    return True
