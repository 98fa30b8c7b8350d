"""Bots, their documents, and what searches stand on.

Revision ID: 0060
Revises: 0041
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision: str = "0060"
down_revision: str | None = "0041"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.execute("create extension if not exists vector")
    op.create_table(
        "chunk_part",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("bot_id", sa.UUID(), nullable=False),
        sa.Column("model_id", sa.SmallInteger(), nullable=False),
        sa.Column("chunk_id", sa.UUID(), nullable=False),
        sa.Column("part", sa.SmallInteger(), nullable=False),
        sa.Column("char_start", sa.Integer(), nullable=False),
        sa.Column("char_end", sa.Integer(), nullable=False),
        sa.Column("header", sa.Text(), server_default="", nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("v", HALFVEC(), nullable=False),
        sa.PrimaryKeyConstraint(
            "client_id", "bot_id", "model_id", "chunk_id", "part", name=op.f("pk_chunk_part")
        ),
    )
    # The key is what searches read, and all they read: the rows themselves are never looked at.
    op.execute(
        """
        create table chunk_term (
          client_id uuid not null, bot_id uuid not null, lexeme text not null,
          chunk_id uuid not null, tf smallint not null, n_terms smallint not null,
          constraint pk_chunk_term primary key (client_id, bot_id, lexeme, chunk_id)
            include (tf, n_terms))
        """
    )
    op.create_index("ix_chunk_term_chunk_id", "chunk_term", ["chunk_id"])
    op.create_table(
        "embedding_model",
        sa.Column("id", sa.SmallInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedding_model")),
        sa.UniqueConstraint("name", "dimension", name=op.f("uq_embedding_model_name_dimension")),
    )
    op.create_table(
        "bot",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("instructions", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=True),
        sa.Column("temperature", sa.Double(), nullable=True),
        sa.Column(
            "retrieval",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("access", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"], ["client.id"], name=op.f("fk_bot_client_id_client"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bot")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_bot_client_id_id")),
    )
    op.create_index(
        "ix_bot_client_id_created_at", "bot", ["client_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "bot_index",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("bot_id", sa.UUID(), nullable=False),
        sa.Column("model_id", sa.SmallInteger(), nullable=False),
        sa.Column("n_chunks", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_terms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_parts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("configs", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "bot_id"],
            ["bot.client_id", "bot.id"],
            name=op.f("fk_bot_index_client_id_bot_id_bot"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", "bot_id", name=op.f("pk_bot_index")),
    )
    op.create_table(
        "bot_user",
        sa.Column("bot_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "bot_id"],
            ["bot.client_id", "bot.id"],
            name=op.f("fk_bot_user_client_id_bot_id_bot"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_bot_user_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("bot_id", "user_id", name=op.f("pk_bot_user")),
    )
    op.create_index("ix_bot_user_user_id", "bot_user", ["user_id"], unique=False)
    op.create_table(
        "document",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("bot_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("title", sa.String(length=512), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=True),
        sa.Column("etag", sa.String(length=256), nullable=True),
        sa.Column("media_type", sa.String(length=128), nullable=True),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("storage_key", sa.String(length=512), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column(
            "progress",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("indexed_version", sa.Integer(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=True),
        sa.Column("characters", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("uploaded_by", sa.UUID(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("indexed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "bot_id"],
            ["bot.client_id", "bot.id"],
            name=op.f("fk_document_client_id_bot_id_bot"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "uploaded_by"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_document_client_id_uploaded_by_app_user"),
            ondelete="SET NULL (uploaded_by)",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_document")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_document_client_id_id")),
    )
    op.create_index(
        "ix_document_client_id_created_at",
        "document",
        ["client_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_document_sha256", "document", ["client_id", "bot_id", "sha256"], unique=False
    )
    op.create_index(
        "ix_document_uploaded_by",
        "document",
        ["uploaded_by"],
        unique=False,
        postgresql_where=sa.text("uploaded_by is not null"),
    )
    op.create_index(
        "uq_document_name",
        "document",
        ["client_id", "bot_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at is null"),
    )
    op.create_table(
        "retrieval",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("bot_ids", postgresql.ARRAY(sa.UUID()), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=True),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("model_id", sa.SmallInteger(), nullable=True),
        sa.Column("legs", sa.String(length=8), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("top", sa.SmallInteger(), nullable=False),
        sa.Column(
            "candidates",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
        ),
        sa.Column(
            "timings",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default="{}",
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_retrieval_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_retrieval_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval")),
    )
    op.create_index("ix_retrieval_user_id", "retrieval", ["client_id", "user_id"], unique=False)
    op.create_index("ix_retrieval_created_at", "retrieval", ["created_at"], unique=False)
    op.create_table(
        "room_bot",
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("bot_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("answers", sa.String(length=16), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column(
            "added_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "bot_id"],
            ["bot.client_id", "bot.id"],
            name=op.f("fk_room_bot_client_id_bot_id_bot"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "room_id"],
            ["room.client_id", "room.id"],
            name=op.f("fk_room_bot_client_id_room_id_room"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("room_id", "bot_id", name=op.f("pk_room_bot")),
    )
    op.create_index("ix_room_bot_bot_id", "room_bot", ["bot_id", "room_id"], unique=False)
    op.create_table(
        "training_job",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("bot_id", sa.UUID(), nullable=False),
        sa.Column("document_id", sa.UUID(), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "bot_id"],
            ["bot.client_id", "bot.id"],
            name=op.f("fk_training_job_client_id_bot_id_bot"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_job")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_training_job_client_id_id")),
    )
    op.create_index(
        "ix_training_job_created_at",
        "training_job",
        ["client_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_training_job_document_id",
        "training_job",
        ["client_id", "document_id", "created_at"],
        unique=False,
    )
    op.create_index("ix_training_job_ended_at", "training_job", ["ended_at"], unique=False)
    op.create_table(
        "chunk",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("bot_id", sa.UUID(), nullable=False),
        sa.Column("document_id", sa.UUID(), nullable=False),
        sa.Column("ord", sa.Integer(), nullable=False),
        sa.Column("char_start", sa.Integer(), nullable=False),
        sa.Column("char_end", sa.Integer(), nullable=False),
        sa.Column("page_start", sa.Integer(), nullable=True),
        sa.Column("page_end", sa.Integer(), nullable=True),
        sa.Column("heading", sa.Text(), server_default="", nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("config", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("n_terms", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "document_id"],
            ["document.client_id", "document.id"],
            name=op.f("fk_chunk_client_id_document_id_document"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunk")),
    )
    op.create_index("ix_chunk_bot_id", "chunk", ["client_id", "bot_id"], unique=False)
    op.create_index(
        "ix_chunk_document_id_ord", "chunk", ["client_id", "document_id", "ord"], unique=False
    )
    op.create_table(
        "staged_part",
        sa.Column("document_id", sa.UUID(), nullable=False),
        sa.Column("model_id", sa.SmallInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("v", HALFVEC(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id", "document_id"],
            ["document.client_id", "document.id"],
            name=op.f("fk_staged_part_client_id_document_id_document"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "model_id", "sha256", name=op.f("pk_staged_part")),
    )
    # Beside its row as long as it fits there: a scan of all of them would look up each.
    op.execute("alter table chunk_part alter column v set storage main")


def downgrade() -> None:
    op.drop_table("staged_part")
    op.drop_table("chunk")
    op.drop_table("training_job")
    op.drop_table("room_bot")
    op.drop_table("retrieval")
    op.drop_table("document")
    op.drop_table("bot_user")
    op.drop_table("bot_index")
    op.drop_table("bot")
    op.drop_table("embedding_model")
    op.drop_table("chunk_term")
    op.drop_table("chunk_part")
