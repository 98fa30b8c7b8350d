"""What the bare engine knows about one connection."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from chatserver.realtime.engine_socket import EngineSocket
from chatserver.realtime.lanes import Lanes
from chatserver.realtime.manager import Member
from chatserver.realtime.packets import Received


@dataclass(slots=True, eq=False)
class Link:
    """One engine connection above its transport."""

    socket: EngineSocket
    members: dict[str, Member] = field(default_factory=dict)
    left: dict[str, None] = field(default_factory=dict)
    lanes: Lanes = field(default_factory=Lanes)
    binary: tuple[Received, Any, list[bytes]] | None = None
    deadline: asyncio.TimerHandle | None = None
    leaving: int = 0
    is_gone: bool = False
