"""The stream's protocol in one process: workers die and come back, Redis loses, the bus reorders.

After every step each reader that misses nothing shows exactly what the row and the log say for its
(generation, index); at the end nobody is stuck, and the stored text is whole. Each rule is switched
off once, and then it must go wrong: otherwise the simulation would prove nothing.

`STREAM_SEEDS` asks for more schedules than a commit gets.
"""

import os
import random
from dataclasses import dataclass, field
from typing import Final

import pytest

from chatserver.assistant.generation.policies import caught_up
from chatserver.assistant.generation.stream_log import Piece, contiguous
from tests.support.reader import Reader

SEEDS: Final = int(os.environ.get("STREAM_SEEDS", "100"))
WORDS: Final = [f"w{at} " for at in range(40)]
TEXT: Final = "".join(WORDS)
MUTATIONS: Final = ("fence", "generation", "dedupe", "gap", "heartbeat")


class WrongError(AssertionError):
    """A reader shows what was never the answer's text."""


@dataclass
class Row:
    """What PostgreSQL has."""

    generation: int = 0
    index: int = 0
    text: str = ""
    status: str = "pending"
    finals: int = 0


@dataclass
class Redis:
    """The log of pieces and the fence; `lose` is FLUSHALL."""

    generation: int | None = None
    pieces: list[Piece] = field(default_factory=list)

    def lose(self) -> None:
        self.generation, self.pieces = None, []


@dataclass(eq=False)
class Worker:
    generation: int
    index: int
    text: str
    is_frozen: bool = False


class Simulation:
    """`without`: the rule that is switched off."""

    def __init__(self, seed: int, without: str = "") -> None:
        self.chance = random.Random(seed)
        self.without = without
        self.row, self.redis = Row(), Redis()
        self.worker: Worker | None = None
        self.zombies: list[Worker] = []
        self.readers: list[Reader] = []
        # What is on its way to each reader.
        self.bus: dict[int, list[tuple[str, dict[str, object]]]] = {}
        # Every (generation, index) that was ever true, with its text.
        self.truth: dict[tuple[int, int], str] = {(0, 0): ""}

    def run(self) -> None:
        for _ in range(400):
            self.step()
            self.check()
            if self.row.status == "complete":
                break
        while self.row.status != "complete":
            self.redis_ok = True
            if self.worker is None:
                self.take_over()
            self.write(self.worker)
            self.check()
        self.settle()

    def step(self) -> None:
        roll = self.chance.random()
        if self.worker is None:
            if roll < 0.5:
                self.take_over()
        elif roll < 0.45:
            self.write(self.worker)
        elif roll < 0.52:
            self.checkpoint(self.worker)
        elif roll < 0.55:
            self.zombies.append(self.worker)
            self.worker = None
        elif roll < 0.57:
            self.redis.lose()
        if self.zombies and self.chance.random() < 0.2:
            zombie = self.chance.choice(self.zombies)
            if not self.write(zombie):
                self.zombies.remove(zombie)
        if len(self.readers) < 4 and self.chance.random() < 0.1:
            self.join()
        self.deliver()

    def take_over(self) -> None:
        """`begin`, `take`, join, `checkpoint`, `clear`: as `AnswerRun.take_over` does."""
        row = self.row
        if row.status == "complete":
            return
        row.generation += 1
        row.status = "in_progress"
        self.truth[row.generation, row.index] = row.text
        self.redis.generation = row.generation
        tail = contiguous(self.redis.pieces, after=row.index, generation=row.generation)
        worker = Worker(row.generation, row.index, row.text)
        worker.text += "".join(piece.text for piece in tail)
        worker.index += len(tail)
        self.worker = worker
        self.checkpoint(worker)
        self.redis.pieces = []

    def write(self, worker: Worker | None) -> bool:
        """Emit one piece, or end; False: fenced off."""
        assert worker is not None
        if worker.text == TEXT:
            return self.end(worker)
        words = self.chance.randint(1, 3)
        rest = TEXT[len(worker.text) :]
        text = "".join(f"{word} " for word in rest.split()[:words])
        if self.redis.generation is None:
            # Missing: the row tells whether the answer is still ours.
            if not self.checkpoint(worker):
                return False
            self.redis.generation = worker.generation
        if self.redis.generation != worker.generation and self.without != "fence":
            return False
        worker.text += text
        worker.index += 1
        piece = Piece(worker.index, worker.generation, text)
        self.redis.pieces.append(piece)
        if worker.generation == self.row.generation:
            self.truth[worker.generation, worker.index] = worker.text
        delta = {"generation": piece.generation, "index": piece.index, "text": text}
        self.publish("delta", delta)
        return True

    def checkpoint(self, worker: Worker) -> bool:
        if self.row.generation != worker.generation or self.row.status != "in_progress":
            return False
        self.row.index, self.row.text = worker.index, worker.text
        self.truth[worker.generation, worker.index] = worker.text
        return True

    def end(self, worker: Worker) -> bool:
        if not self.checkpoint(worker):
            return False
        self.row.status = "complete"
        self.row.finals += 1
        return True

    def publish(self, kind: str, data: dict[str, object]) -> None:
        for waiting in self.bus.values():
            if self.chance.random() > 0.05:
                waiting.append((kind, data))

    def deliver(self) -> None:
        for at, reader in enumerate(self.readers):
            waiting = self.bus[at]
            while waiting and self.chance.random() < 0.6:
                place = 0 if self.chance.random() > 0.1 else self.chance.randrange(len(waiting))
                _, data = waiting.pop(place)
                self.take(reader, data)
            if reader.wants_catch_up and self.chance.random() < 0.5:
                self.catch_up(reader)

    def take(self, reader: Reader, delta: dict[str, object]) -> None:
        generation, index = int(str(delta["generation"])), int(str(delta["index"]))
        known = reader.generation is not None
        if known and self.without == "generation" and index == reader.index + 1:
            reader.index, reader.text = index, reader.text + str(delta["text"])
        elif known and self.without == "dedupe" and index <= reader.index:
            reader.text += str(delta["text"])
        elif known and self.without == "gap" and index > reader.index + 1:
            reader.generation, reader.index = generation, index
            reader.text += str(delta["text"])
        else:
            reader.take(delta)

    def join(self) -> None:
        self.bus[len(self.readers)] = []
        self.readers.append(Reader())

    def catch_up(self, reader: Reader) -> None:
        have = reader.have
        joined = caught_up(
            self.row,
            self.redis.pieces,
            generation=have.get("generation"),
            index=have.get("index"),
        )
        reader.catch_up(
            {
                "generation": self.row.generation,
                "index": joined.index,
                "after_index": joined.after_index,
                "text": joined.text,
            }
        )

    def settle(self) -> None:
        """Deliver all that is under way; then heartbeats and the final fact end it."""
        assert self.row.finals == 1
        assert self.row.text == TEXT
        for at, reader in enumerate(self.readers):
            for _, data in self.bus[at]:
                self.take(reader, data)
            if self.without != "heartbeat":
                reader.beat({"generation": self.row.generation, "index": self.row.index})
            if reader.wants_catch_up:
                self.catch_up(reader)
            if reader.text != TEXT:
                raise WrongError(f"stuck at {reader.generation}.{reader.index}")

    def check(self) -> None:
        for reader in self.readers:
            if reader.generation is None or reader.wants_catch_up:
                continue
            true = self.truth.get((reader.generation, reader.index))
            if true is None or true != reader.text:
                raise WrongError(f"{reader.generation}.{reader.index}: {reader.text!r}")


def test_every_reader_ends_with_exactly_the_stored_text() -> None:
    for seed in range(SEEDS):
        Simulation(seed).run()


@pytest.mark.parametrize("rule", MUTATIONS)
def test_without_any_one_rule_it_goes_wrong(rule: str) -> None:
    wrong = 0
    for seed in range(SEEDS):
        try:
            Simulation(seed, without=rule).run()
        except (WrongError, AssertionError):
            wrong += 1
    assert wrong > SEEDS // 20, wrong
