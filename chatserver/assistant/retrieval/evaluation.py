"""How much of what answers a question stands in the first passages that a search gives."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
# A passage as it is scored: its document, and its half-open span in code points.
Found: TypeAlias = tuple[str, int, int]


class QuestionFileError(Exception):
    """The file can't be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the spans of one document that answer it."""

    text: str
    document: str
    references: tuple[Span, ...]


def read_questions(path: Path) -> list[Question]:
    """Read a CSV with `question`, `references` (JSON: start_index, end_index) and `corpus_id`.

    Raises:
        QuestionFileError: a column is missing, or a line can't be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        return [_question(row) for row in rows]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise QuestionFileError(
            f"{path} can't be read ({type(error).__name__}: {error})."
        ) from error


def _question(row: dict[str, str]) -> Question:
    spans = tuple(
        (int(each["start_index"]), int(each["end_index"])) for each in json.loads(row["references"])
    )
    return Question(row["question"], row["corpus_id"], spans)


def united(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def shared(question: Question, found: Sequence[Found]) -> tuple[int, int, int]:
    """Count characters: wanted and found, wanted, and all that was given."""
    wanted = united(question.references)
    inside = united((start, end) for name, start, end in found if name == question.document)
    both = sum(
        max(0, min(one[1], other[1]) - max(one[0], other[0])) for one in wanted for other in inside
    )
    given = sum(end - start for _, start, end in found)
    return both, sum(end - start for start, end in wanted), given


def recall(question: Question, found: Sequence[Found]) -> float:
    both, wanted, _ = shared(question, found)
    return both / wanted


def precision(question: Question, found: Sequence[Found]) -> float:
    both, _, given = shared(question, found)
    return both / given if given else 0.0


def reciprocal_rank(question: Question, found: Sequence[Found]) -> float:
    """Give 1 / the place of the first passage that holds any of what is wanted."""
    for place, each in enumerate(found, start=1):
        if shared(question, [each])[0]:
            return 1 / place
    return 0.0
