"""Of every column it was decided what an erasure does with it; a new one fails until it is."""

import pytest

from chatserver.tables import METADATA

# Nothing in these is about a person: tenants, their credentials and counters, our own machinery.
OF_NOBODY = {
    "client",
    "client_key",
    "client_usage",
    "cluster_generation",
    "ai_usage",
    "erasure_room",
    "job",
    "jwt_issuer",
    # What a bot is and knows is the application's own, whoever handed it in.
    *("bot", "bot_index", "chunk", "chunk_part", "chunk_term", "embedding_model", "room_bot"),
    *("staged_part", "training_job"),
}
# The rows of a person: gone with the erasure.
DELETED = {
    *("app_user", "bot_user", "departure", "key_family", "key_retired", "member", "retrieval"),
}
# Columns that hold nothing of a person, in rows that stay: places, times, kinds.
KEPT = {
    "generation": {
        *("message_id", "client_id", "room_id", "bot_id", "question_id", "status", "generation"),
        *("attempt", "partial_index", "is_weak", "retrieval_id", "cancel_requested_at"),
        *("error_code", "created_at", "started_at", "ended_at"),
    },
    "audit": {"id", "client_id", "at", "action"},
    "document": {
        *("id", "client_id", "bot_id", "kind", "origin", "name", "title", "url", "etag"),
        *("media_type", "size", "sha256", "storage_key", "status", "reason", "progress"),
        *("version", "indexed_version", "pages", "characters", "chunks", "parts"),
        *("created_at", "updated_at", "indexed_at", "deleted_at"),
    },
    "erasure": {
        # The proof itself, with the external id that it is about.
        *("id", "client_id", "user_id", "external_id", "state", "requested_by", "requested_at"),
        *("completed_at", "after_room", "counts", "report", "signature", "signed_by"),
    },
    "idempotency": {
        *("client_id", "caller", "key", "request_hash", "status", "created_at", "locked_until"),
    },
    "message": {
        *("id", "client_id", "room_id", "seq", "msg_no", "sender", "status", "created_at"),
    },
    "outbox": {
        *("id", "client_id", "room_id", "fact_id", "type", "created_at", "attempts", "due_at"),
        *("error", "set_aside_at", "seq", "message_id", "actor_type"),
    },
    "room": {
        *("id", "client_id", "type", "title", "external_id", "history", "details", "is_active"),
        *("epoch", "last_seq", "min_seq", "msg_no", "members_count", "last_activity_at", "bots"),
        *("last_event_at", "deactivation_check_at", "deactivates_at", "deactivated_at"),
        *("deleted_at", "created_at", "updated_at"),
    },
    "room_event": {
        # `effect` names server ids, which name nobody once the person's row is gone.
        *("room_id", "seq", "client_id", "id", "type", "actor_type", "message_id", "effect"),
        "created_at",
    },
}
# Columns that are overwritten or cleared; tests/integration/privacy/test_erasing.py looks that
# nothing of the person is left in any of them.
SCRUBBED = {
    "generation": {"asked_by", "sources"},
    "audit": {"actor", "subject", "address", "details"},
    # By its foreign key, with the person's row.
    "document": {"uploaded_by"},
    "idempotency": {"answer"},
    "message": {
        *("sender_id", "sender_key", "client_msg_id", "body_hash", "content", "partial_content"),
        *("error_message", "context", "reply_to", "attachments", "mentions", "details", "pinned"),
        *("edited_at", "deleted_at"),
    },
    "outbox": {"data", "actor_id"},
    "room": {"created_by"},
    "room_event": {"actor_id", "data"},
}


def test_every_table_was_decided_about() -> None:
    assert set(METADATA.tables) - OF_NOBODY - DELETED == set(KEPT) | set(SCRUBBED)


@pytest.mark.parametrize("table", sorted({*KEPT, *SCRUBBED}))
def test_every_column_was_decided_about(table: str) -> None:
    kept, scrubbed = KEPT.get(table, set()), SCRUBBED.get(table, set())
    assert kept & scrubbed == set()
    assert set(METADATA.tables[table].columns.keys()) == kept | scrubbed


@pytest.mark.parametrize("table", sorted(DELETED - {"app_user", "key_retired"}))
def test_the_rows_of_a_person_go_with_the_person(table: str) -> None:
    [foreign] = [
        key for key in METADATA.tables[table].foreign_key_constraints
        if key.referred_table.name == "app_user"
    ]  # fmt: skip
    assert foreign.ondelete == "CASCADE"
    # Both columns: nobody's row can hang on another tenant's person.
    assert foreign.column_keys == ["client_id", "user_id"]
