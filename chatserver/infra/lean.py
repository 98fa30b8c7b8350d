"""Libraries without what they would load for features that nothing of ours uses.

They look whether another library is installed, and load it only to be able to use it later.
"""

import importlib
import sys
from typing import Final

_LEFT_OUT: Final = {
    "structlog": ("rich",),  # colourful tracebacks
    "redis.asyncio": ("opentelemetry",),  # its own figures
    "engineio": ("requests", "websocket"),  # its blocking client
    "socketio": ("valkey",),  # its bus; ours speaks to Valkey as to Redis
}


def load_lean() -> None:
    """Load them, once, before anything else does: a tenth of a start is saved."""
    for library, others in _LEFT_OUT.items():
        hidden = [name for name in others if name not in sys.modules]
        for name in hidden:
            sys.modules[name] = None  # type: ignore[assignment]  # so importing it fails
        try:
            importlib.import_module(library)
        finally:
            for name in hidden:
                del sys.modules[name]
