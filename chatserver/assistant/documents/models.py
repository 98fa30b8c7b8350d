"""Documents, the passages they are cut into, and how those are found."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


def _small(default: str | None = None) -> Column[int]:
    return Column(SmallInteger, nullable=False, server_default=default)


def _counter() -> Column[int]:
    return Column(BigInteger, nullable=False, server_default="0")


def _bytes(*, nullable: bool = False) -> Column[bytes]:
    return Column(LargeBinary, nullable=nullable)


class Document(SQLModel, table=True):
    """A source of a bot. `version` counts its contents; `indexed_version` is the one in the search.

    `name` is what an upload of the same thing is known by; `sha256` is of the bytes.
    """

    __tablename__ = "document"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "bot_id"], ["bot.client_id", "bot.id"], ondelete="CASCADE"
        ),
        # No cascade: a document stays when the person who uploaded it is erased.
        ForeignKeyConstraint(
            ["client_id", "uploaded_by"],
            ["app_user.client_id", "app_user.id"],
            ondelete="SET NULL (uploaded_by)",
        ),
        UniqueConstraint("client_id", "id"),
        Index(
            "uq_document_name",
            "client_id",
            "bot_id",
            "name",
            unique=True,
            postgresql_where=text("deleted_at is null"),
        ),
        Index("ix_document_client_id_created_at", "client_id", "created_at", "id"),
        Index("ix_document_sha256", "client_id", "bot_id", "sha256"),
        Index(
            "ix_document_uploaded_by",
            "uploaded_by",
            postgresql_where=text("uploaded_by is not null"),
        ),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    bot_id: UUID = Field(sa_column=uuid_column())
    kind: str = Field(max_length=8)  # file, url, text
    origin: str = Field(default="local", max_length=16)
    name: str = Field(max_length=512)
    title: str = Field(max_length=512)
    url: str | None = Field(default=None, max_length=2048)
    etag: str | None = Field(default=None, max_length=256)
    media_type: str | None = Field(default=None, max_length=128)
    size: int = Field(default=0, sa_column=_counter())
    sha256: bytes | None = Field(default=None, sa_column=_bytes(nullable=True))
    storage_key: str | None = Field(default=None, max_length=512)
    status: str = Field(default="queued", max_length=16)
    reason: str | None = Field(default=None, max_length=32)
    progress: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    version: int = 1
    indexed_version: int = 0
    pages: int | None = None
    characters: int = Field(default=0, sa_column=_counter())
    chunks: int = 0
    parts: int = 0
    uploaded_by: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    indexed_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    deleted_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class Chunk(SQLModel, table=True):
    """A passage of about 512 tokens: what is found, shown and cited.

    `char_start` and `char_end` count code points of the document's text as it was read, before
    hidden characters were taken out of `body`. `sha256` is of everything that was embedded.
    """

    __tablename__ = "chunk"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "document_id"],
            ["document.client_id", "document.id"],
            ondelete="CASCADE",
        ),
        Index("ix_chunk_document_id_ord", "client_id", "document_id", "ord"),
        Index("ix_chunk_bot_id", "client_id", "bot_id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    bot_id: UUID = Field(sa_column=uuid_column())
    document_id: UUID = Field(sa_column=uuid_column())
    ord: int
    char_start: int
    char_end: int
    page_start: int | None = None
    page_end: int | None = None
    heading: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    body: str = Field(sa_column=Column(Text, nullable=False))
    config: str = Field(max_length=32)  # the text search configuration of its postings
    sha256: bytes = Field(sa_column=_bytes())
    n_terms: int = Field(sa_column=_small())


# The two below have no foreign keys: hundreds of thousands of rows come with one document, and each
# key would look up a row that the same transaction has just written.


class ChunkPart(SQLModel, table=True):
    """A passage of about 128 tokens: what is embedded. `sha256` is of the text that was."""

    __tablename__ = "chunk_part"

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    bot_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    model_id: int = Field(sa_column=Column(SmallInteger, primary_key=True))
    chunk_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    part: int = Field(sa_column=Column(SmallInteger, primary_key=True))
    char_start: int
    char_end: int
    # What is embedded above the passage itself: where it stands.
    header: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    sha256: bytes = Field(sa_column=_bytes())
    # Without a dimension: that is the model's.
    v: Any = Field(sa_column=Column(HALFVEC(), nullable=False))


class ChunkTerm(SQLModel, table=True):
    """A posting: a lexeme in a chunk. `n_terms` is the chunk's length, so that no chunk is read."""

    __tablename__ = "chunk_term"
    # Its key includes `tf` and `n_terms`: searches read nothing else.
    __table_args__ = (Index("ix_chunk_term_chunk_id", "chunk_id"),)

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    bot_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    lexeme: str = Field(sa_column=Column(Text, primary_key=True))
    chunk_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    tf: int = Field(sa_column=_small())
    n_terms: int = Field(sa_column=_small())


class StagedPart(SQLModel, table=True):
    """A vector of a document that is being read: whoever takes over embeds only what is missing."""

    __tablename__ = "staged_part"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "document_id"],
            ["document.client_id", "document.id"],
            ondelete="CASCADE",
        ),
    )

    document_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    model_id: int = Field(sa_column=Column(SmallInteger, primary_key=True))
    sha256: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    v: Any = Field(sa_column=Column(HALFVEC(), nullable=False))


class BotIndex(SQLModel, table=True):
    """What a bot's search stands on: its model, and the counts that BM25 needs.

    `configs` are the text search configurations of its chunks: a question is read in each.
    """

    __tablename__ = "bot_index"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "bot_id"], ["bot.client_id", "bot.id"], ondelete="CASCADE"
        ),
    )

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    bot_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    model_id: int = Field(sa_column=_small())
    n_chunks: int = Field(default=0, sa_column=_counter())
    n_terms: int = Field(default=0, sa_column=_counter())
    n_parts: int = Field(default=0, sa_column=_counter())
    configs: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(Text), nullable=False, server_default="{}")
    )
