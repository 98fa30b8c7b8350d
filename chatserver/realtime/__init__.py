"""The realtime engine. `create_server` gives it bare, beneath python-socketio's interface."""

from chatserver.realtime.bare import create_server

__all__ = ["create_server"]
