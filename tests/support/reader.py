"""A reader that follows an answer by the rules of the protocol, as any client would."""

from dataclasses import dataclass
from typing import Any


@dataclass
class Reader:
    """`text` is what it shows. `wants_catch_up`: it missed something, or begins in the middle."""

    generation: int | None = None
    index: int = 0
    text: str = ""
    wants_catch_up: bool = True

    def take(self, delta: dict[str, Any]) -> None:
        """Apply a `message.delta`, or see that something is missing."""
        if self.generation is None or delta["generation"] > self.generation:
            self.wants_catch_up = True
        elif delta["generation"] < self.generation or delta["index"] <= self.index:
            return
        elif delta["index"] > self.index + 1:
            self.wants_catch_up = True
        else:
            self.index, self.text = delta["index"], self.text + delta["text"]

    def beat(self, progress: dict[str, Any]) -> None:
        """Apply a `message.progress`."""
        if (progress["generation"], progress["index"]) > (self.generation or 0, self.index):
            self.wants_catch_up = True

    @property
    def have(self) -> dict[str, int]:
        """What to say in `assistant.catch_up`."""
        if self.generation is None:
            return {}
        return {"generation": self.generation, "index": self.index}

    def catch_up(self, said: dict[str, Any]) -> None:
        """Apply what `assistant.catch_up` gave."""
        self.wants_catch_up = False
        if said["after_index"] == 0:
            self.text = said["text"]
        else:
            assert said["after_index"] == self.index, "a tail must begin where we end"
            self.text += said["text"]
        self.generation, self.index = said["generation"], said["index"]
