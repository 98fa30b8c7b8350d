"""The whole of our dependency injection: a service, opened for one transaction."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar

Service = TypeVar("Service")

# A callable that gives a context manager around a service; leaving the block commits.
Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Service]]
