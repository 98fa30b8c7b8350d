"""What an answer is made from, and what answerers give: pieces of text, signs of life, an end."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID

ContinueMode: TypeAlias = Literal["native", "prefix", "trailing", "ask", "restart"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A passage that an answer may use. `n` is its number in the text, final once it was sent.

    `char_start` and `char_end` are a half-open span of code points in the document.
    """

    n: int
    chunk_id: UUID
    document_id: UUID
    document_version: int
    title: str
    text: str
    char_start: int
    char_end: int
    score: float
    page: int | None = None
    url: str | None = None

    def members(self) -> dict[str, Any]:
        """Give the form of `context.chunks` and of what is frozen."""
        found: dict[str, Any] = {
            "n": self.n,
            "chunk_id": str(self.chunk_id),
            "document_id": str(self.document_id),
            "document_version": self.document_version,
            "title": self.title,
            "char_start": self.char_start,
            "char_end": self.char_end,
            "score": round(self.score, 4),
            "text": self.text,
        }
        if self.page is not None:
            found["page"] = self.page
        if self.url is not None:
            found["url"] = self.url
        return found

    @classmethod
    def of(cls, members: dict[str, Any]) -> "Source":
        """Read back what was frozen."""
        return cls(
            **{
                **members,
                "chunk_id": UUID(members["chunk_id"]),
                "document_id": UUID(members["document_id"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said before: `user` or `assistant`."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question with all that an answer may be made from.

    `shown`: what was answered already, before a worker died or a provider failed. `weak`: nothing
    in the sources says anything about the question. `must_find`: refuse then, instead of answering
    from nothing.
    """

    question: str
    instructions: str
    sources: tuple[Source, ...]
    history: tuple[Turn, ...] = ()
    shown: str = ""
    weak: bool = False
    must_find: bool = True
    cites: bool = True
    model: str | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer, as the model wrote it."""

    text: str


@dataclass(frozen=True, slots=True)
class Sign:
    """The model is at work but shows nothing: it reasons, or its provider keeps the line open."""


@dataclass(frozen=True, slots=True)
class Anew:
    """What was shown is replaced by what follows: the model began again and can't be joined."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is complete. `usage` counts tokens: `prompt_tokens`, `completion_tokens`."""

    finish_reason: str
    usage: dict[str, int] = field(default_factory=dict)
    continued_by: str | None = None


Piece: TypeAlias = Text | Sign | Anew | Ended


class Answerer(Protocol):
    """Who answers: a language model, or the embedded extractive one."""

    def model_of(self, asked: Asked) -> str:
        """Name what answers, for `context.model`."""
        ...

    def answer(self, asked: Asked) -> AsyncIterator[Piece]:
        """Answer, from where `asked.shown` ends. The last piece is `Ended`; without it it failed.

        Raises:
            AnswerFailedError: what was given so far stands, and may be continued later.
        """
        ...
