"""Every table of the main job.

Revision ID: 0001
Revises:
Create Date: 2026-11-20 10:36:50.332074
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "client",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column(
            "settings", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("revoked_before", sa.DateTime(timezone=True), nullable=True),
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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client")),
        sa.UniqueConstraint("slug", name=op.f("uq_client_slug")),
    )
    op.create_table(
        "cluster_generation",
        sa.Column("singleton", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("system_identifier", sa.BigInteger(), nullable=False),
        sa.Column("timeline", sa.BigInteger(), nullable=False),
        sa.Column(
            "since",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_cluster_generation")),
    )
    op.create_table(
        "idempotency",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("caller", sa.String(length=160), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("client_id", "caller", "key", name=op.f("pk_idempotency")),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"], unique=False)
    op.create_table(
        "job",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=True),
        sa.Column("dedupe", sa.String(length=128), nullable=False),
        sa.Column(
            "payload", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "run_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    op.create_index(
        "ix_job_due",
        "job",
        ["kind", "run_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_job_ended_at",
        "job",
        ["ended_at"],
        unique=False,
        postgresql_where=sa.text("ended_at is not null"),
    )
    op.create_index(
        "ix_job_lease_until",
        "job",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "uq_job_dedupe",
        "job",
        ["kind", "dedupe"],
        unique=True,
        postgresql_where=sa.text("state in ('queued', 'running')"),
    )
    op.create_table(
        "app_user",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("external_id", sa.String(length=128), nullable=False),
        sa.Column("display_name", sa.String(length=256), nullable=True),
        sa.Column("avatar_url", sa.String(length=2048), nullable=True),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("rooms_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rooms_changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_before", sa.DateTime(timezone=True), nullable=True),
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
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_app_user_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_app_user")),
        sa.UniqueConstraint(
            "client_id", "external_id", name=op.f("uq_app_user_client_id_external_id")
        ),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_app_user_client_id_id")),
    )
    op.create_index("ix_app_user_rooms_changed_at", "app_user", ["rooms_changed_at"], unique=False)
    op.create_table(
        "client_key",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("kid", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.Column("pepper_id", sa.Integer(), nullable=False),
        sa.Column("bcrypt_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_client_key_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client_key")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_client_key_client_id_id")),
        sa.UniqueConstraint("kid", name=op.f("uq_client_key_kid")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=True),
        sa.Column("fact_id", sa.UUID(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column(
            "data", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("set_aside_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_outbox_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "room",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=256), nullable=True),
        sa.Column("external_id", sa.String(length=128), nullable=True),
        sa.Column("history", sa.String(length=8), nullable=False),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("min_seq", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("msg_no", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("members_count", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=True),
        sa.Column(
            "last_activity_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "last_event_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("deactivation_check_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deactivates_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deactivated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
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
        sa.ForeignKeyConstraint(
            ["client_id"], ["client.id"], name=op.f("fk_room_client_id_client"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_room")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_room_client_id_id")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "ix_room_client_id_created_at", "room", ["client_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "ix_room_deactivation_check_at",
        "room",
        ["deactivation_check_at"],
        unique=False,
        postgresql_where=sa.text("deactivation_check_at is not null"),
    )
    op.create_index(
        "uq_room_external_id",
        "room",
        ["client_id", "external_id"],
        unique=True,
        postgresql_where=sa.text("deleted_at is null"),
    )
    op.create_table(
        "departure",
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_departure_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("room_id", "user_id", name=op.f("pk_departure")),
    )
    op.create_index("ix_departure_at", "departure", ["at"], unique=False)
    op.create_index("ix_departure_user_id_at", "departure", ["user_id", "at"], unique=False)
    op.create_table(
        "key_family",
        sa.Column("kid", sa.String(length=16), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("issued_by", sa.String(length=16), nullable=True),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("rotation", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("revoked_reason", sa.String(length=32), nullable=True),
        sa.Column("cur_gen", sa.Integer(), nullable=False),
        sa.Column("cur_id", sa.UUID(), nullable=False),
        sa.Column("cur_mac", sa.LargeBinary(), nullable=False),
        sa.Column("cur_ct", sa.LargeBinary(), nullable=True),
        sa.Column("pend_id", sa.UUID(), nullable=True),
        sa.Column("pend_mac", sa.LargeBinary(), nullable=True),
        sa.Column("pend_ct", sa.LargeBinary(), nullable=True),
        sa.Column("pend_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("prev_id", sa.UUID(), nullable=True),
        sa.Column("prev_mac", sa.LargeBinary(), nullable=True),
        sa.Column("grace_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idle_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("abs_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pepper_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_key_family_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_key_family")),
        sa.UniqueConstraint("client_id", "kid", name=op.f("uq_key_family_client_id_kid")),
    )
    op.create_index(
        "uq_key_family_device",
        "key_family",
        ["client_id", "user_id", "device_id"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_table(
        "member",
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("is_muted", sa.Boolean(), nullable=False),
        sa.Column("is_favorite", sa.Boolean(), nullable=False),
        sa.Column("notification_level", sa.String(length=16), nullable=False),
        sa.Column("joined_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("min_seq", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("read_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("read_msg_no", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "joined_at",
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
        sa.ForeignKeyConstraint(
            ["client_id", "room_id"],
            ["room.client_id", "room.id"],
            name=op.f("fk_member_client_id_room_id_room"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "user_id"],
            ["app_user.client_id", "app_user.id"],
            name=op.f("fk_member_client_id_user_id_app_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("room_id", "user_id", name=op.f("pk_member")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index("ix_member_user_id", "member", ["user_id", "room_id"], unique=False)
    op.create_index(
        "ix_member_room_id_joined_at", "member", ["room_id", "joined_at", "user_id"], unique=False
    )
    op.create_table(
        "message",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("msg_no", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.String(length=8), nullable=False),
        sa.Column("sender_id", sa.String(length=128), nullable=True),
        sa.Column("sender_key", sa.String(length=160), nullable=False),
        sa.Column("client_msg_id", sa.String(length=64), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("partial_content", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("context", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("reply_to", sa.UUID(), nullable=True),
        sa.Column(
            "attachments",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[]",
            nullable=False,
        ),
        sa.Column(
            "mentions", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False
        ),
        sa.Column(
            "details", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("edited_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "room_id"],
            ["room.client_id", "room.id"],
            name=op.f("fk_message_client_id_room_id_room"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_message_client_id_id")),
        sa.UniqueConstraint(
            "room_id",
            "sender_key",
            "client_msg_id",
            name=op.f("uq_message_room_id_sender_key_client_msg_id"),
        ),
    )
    op.create_index(
        "uq_message_room_id_seq",
        "message",
        ["room_id", "seq"],
        unique=True,
        postgresql_where=sa.text("seq > 0"),
    )
    op.create_table(
        "room_event",
        sa.Column("room_id", sa.UUID(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("actor_type", sa.String(length=8), nullable=False),
        sa.Column("actor_id", sa.String(length=128), nullable=True),
        sa.Column("message_id", sa.UUID(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("effect", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "room_id"],
            ["room.client_id", "room.id"],
            name=op.f("fk_room_event_client_id_room_id_room"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("room_id", "seq", name=op.f("pk_room_event")),
    )
    op.create_index(
        "ix_room_event_created_at", "room_event", ["created_at", "room_id", "seq"], unique=False
    )
    op.create_table(
        "key_retired",
        sa.Column("kid", sa.String(length=16), nullable=False),
        sa.Column("gen", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.UUID(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by_id", sa.UUID(), nullable=True),
        sa.Column("by_door", sa.String(length=16), nullable=True),
        sa.Column(
            "retired_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "kid"],
            ["key_family.client_id", "key_family.kid"],
            name=op.f("fk_key_retired_client_id_kid_key_family"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("kid", "gen", name=op.f("pk_key_retired")),
    )


def downgrade() -> None:
    op.drop_table("key_retired")
    op.drop_index("ix_room_event_created_at", table_name="room_event")
    op.drop_table("room_event")
    op.drop_index(
        "uq_message_room_id_seq", table_name="message", postgresql_where=sa.text("seq > 0")
    )
    op.drop_table("message")
    op.drop_index("ix_member_room_id_joined_at", table_name="member")
    op.drop_index("ix_member_user_id", table_name="member")
    op.drop_table("member")
    op.drop_index(
        "uq_key_family_device",
        table_name="key_family",
        postgresql_where=sa.text("status = 'active'"),
    )
    op.drop_table("key_family")
    op.drop_index("ix_departure_user_id_at", table_name="departure")
    op.drop_index("ix_departure_at", table_name="departure")
    op.drop_table("departure")
    op.drop_index(
        "uq_room_external_id", table_name="room", postgresql_where=sa.text("deleted_at is null")
    )
    op.drop_index(
        "ix_room_deactivation_check_at",
        table_name="room",
        postgresql_where=sa.text("deactivation_check_at is not null"),
    )
    op.drop_index("ix_room_client_id_created_at", table_name="room")
    op.drop_table("room")
    op.drop_table("outbox")
    op.drop_table("client_key")
    op.drop_index("ix_app_user_rooms_changed_at", table_name="app_user")
    op.drop_table("app_user")
    op.drop_index(
        "uq_job_dedupe",
        table_name="job",
        postgresql_where=sa.text("state in ('queued', 'running')"),
    )
    op.drop_index(
        "ix_job_lease_until", table_name="job", postgresql_where=sa.text("state = 'running'")
    )
    op.drop_index(
        "ix_job_ended_at", table_name="job", postgresql_where=sa.text("ended_at is not null")
    )
    op.drop_index("ix_job_due", table_name="job", postgresql_where=sa.text("state = 'queued'"))
    op.drop_table("job")
    op.drop_index("ix_idempotency_created_at", table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_table("cluster_generation")
    op.drop_table("client")
