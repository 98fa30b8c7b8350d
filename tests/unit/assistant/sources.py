"""Sources for tests."""

from uuid import UUID, uuid4

from chatserver.assistant.answering.schemas import Source


def source(
    n: int, text: str = "Some words.", *, document: UUID | None = None, **more: int
) -> Source:
    return Source(
        n=n,
        chunk_id=uuid4(),
        document_id=document or uuid4(),
        document_version=1,
        title="A title",
        text=text,
        char_start=100 * n,
        char_end=100 * n + len(text),
        score=1.0,
        page=more.get("page"),
    )
