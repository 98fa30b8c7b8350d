"""What happened to connections, counted by reason, for metrics."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Every key is one of ours: a code that we tell, or a reason that the engine gives."""

    closings: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    shed: int = 0
