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
    "inbound_refusal",
    "inbound_secret",
    "inbound_source",
    "delivery",
    "delivery_attempt_part",
    "delivery_day",
    "delivery_event",
    "delivery_target",
    "delivery_failure_told",
    # Rooms, for some seconds.
    "message_notice",
    "job",
    "moderation_rule",
    "webhook_endpoint",
    "webhook_event_number",
    "webhook_secret",
    "jwt_issuer",
    # Names tokens, for a day; whose they are stands in the token alone.
    "revoked_token",
    "provider",
    # Keys of objects that are to be removed, by ids alone; how far the log is indexed.
    "object_removal",
    "search_progress",
    "continue_way",
    "server_key",
}
# What a bot is and knows is the application's own, whoever handed it in.
KNOWLEDGE = {
    *("bot", "bot_index", "chunk", "chunk_part", "chunk_term", "embedding_model", "room_bot"),
    *("staged_part", "training_job"),
}
# The rows of a person: gone with the erasure.
# A hold on a person goes with the person, who can only go when it was released.
DELETED = {
    *("app_user", "bot_user", "departure", "key_family", "key_retired", "legal_hold", "member"),
    *("in_app_notification", "preference", "push_device", "reaction", "retrieval", "room_ban"),
}
# Rows that go with the person's files, or as soon as the text of a message does: by triggers.
GONE_WITH = {"file", "message_file", "message_search"}
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
    "flag": {
        *("id", "client_id", "room_id", "message_id", "rule_id", "state", "created_at"),
        "resolved_at",
    },
    "invite": {
        *("id", "client_id", "room_id", "code_hash", "role", "max_uses", "uses", "created_at"),
        *("expires_at", "revoked_at"),
    },
    "inbound_effect": {
        *("event_id", "rule", "place", "client_id", "action", "turn", "room_id", "done_at"),
    },
    # The id under which a vendor knows its event must go on counting once.
    "inbound_event": {
        *("id", "client_id", "source_id", "external_id", "received_at", "secret_hint", "hops"),
        *("status", "attempts", "replays", "planned_at", "ended_at"),
    },
    "idempotency": {
        *("client_id", "caller", "key", "request_hash", "status", "created_at", "locked_until"),
        "made",
    },
    "message": {
        *("id", "client_id", "room_id", "seq", "msg_no", "sender", "status", "created_at"),
        *("version", "changed_seq", "silent", "thread_id", "reply_count"),
    },
    "mention": {"room_id", "seq", "client_id"},
    "message_edit": {"message_id", "version", "client_id", "replaced_at"},
    "delivery_attempt": {
        *("delivery_id", "generation", "no", "client_id", "target_id", "trigger", "started_at"),
        *("latency_ms", "outcome", "error", "status", "retry_after_s", "peer"),
        *("signed_at", "signature", "body_bytes", "body_sha256"),
    },
    "webhook_event": {
        *("client_id", "seq", "id", "type", "room_id", "room_type", "room_seq", "actor_type"),
        *("only_endpoint_id", "hops", "created_at"),
    },
    "outbox": {
        *("id", "client_id", "room_id", "fact_id", "type", "created_at", "attempts", "due_at"),
        *("error", "set_aside_at", "seq", "message_id", "actor_type"),
    },
    "notification": {
        # What the application called it, for all of its recipients.
        *("id", "client_id", "category", "priority", "details", "scheduled_at", "expires_at"),
        *("cancelled_at", "created_at", "batch_id", "traceparent"),
    },
    # Sealed, for all of the recipients, and gone when they are told; who is unknown by then is not.
    "notification_batch": {
        *("id", "client_id", "state", "recipients", "done", "skipped", "error", "sealed"),
        *("created_at", "ended_at"),
    },
    "notification_batch_part": {"batch_id", "no", "client_id", "sealed"},
    # Sealed, for all of the recipients, and gone a day after the last may be sent.
    "notification_content": {"notification_id", "channel", "client_id", "sealed", "purge_at"},
    # Goes with the file, which goes with its uploader.
    "notification_file": {"file_id", "notification_id", "client_id", "purge_at"},
    "notification_delivery": {
        *("delivery_id", "notification_id", "client_id", "position", "channel", "route"),
        *("unless", "instead_of"),
    },
    # An address that wants nothing must go on getting nothing; it names no user, and is a MAC.
    "suppression": {
        *("id", "client_id", "channel", "address_hash", "address_hint", "scope", "reason"),
        *("created_at", "expires_at"),
    },
    # As a suppression, which it may become; gone after 14 days.
    "soft_bounce": {"client_id", "address_hash", "delivery_id", "at"},
    "room": {
        *("id", "client_id", "type", "title", "external_id", "history", "details", "is_active"),
        *("epoch", "last_seq", "min_seq", "msg_no", "members_count", "last_activity_at", "bots"),
        "is_loud",
        # `pair` names server ids, and is gone with a seat.
        *("slow_mode_s", "post_role", "archived_at", "pair"),
        *("last_event_at", "deactivation_check_at", "deactivates_at", "deactivated_at"),
        *("deleted_at", "created_at", "updated_at", "closed_at", "handed_back_at"),
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
    "inbound_effect": {"arguments", "result", "error", "state"},
    "notification_delivery": {"person", "address_hash", "address"},
    "inbound_event": {"body", "headers", "error"},
    "message": {
        *("sender_id", "sender_key", "client_msg_id", "body_hash", "content", "partial_content"),
        *("error_message", "context", "reply_to", "attachments", "mentions", "details", "pinned"),
        *("edited_at", "deleted_at", "reactions", "pinned_at"),
    },
    # Their rows go: with a message that is scrubbed, and with a name that is mentioned.
    "mention": {"target"},
    "message_edit": {"content"},
    "outbox": {"data", "actor_id"},
    "room": {"created_by", "assignee"},
    "invite": {"created_by"},
    "flag": {"source", "flagged_by", "reason", "resolved_by"},
    "delivery_attempt": {"response", "url"},
    "webhook_event": {"actor_id", "data"},
    "room_event": {"actor_id", "data"},
}


def test_every_table_was_decided_about() -> None:
    decided = OF_NOBODY | KNOWLEDGE | DELETED | GONE_WITH
    assert set(METADATA.tables) - decided == set(KEPT) | set(SCRUBBED)


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
