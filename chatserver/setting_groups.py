"""Settings in groups, each beside what it is about; `settings.py` reads them all."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class Limits(BaseModel):
    """What one key may do; announced in `session.ready`. `dev` has ten times these.

    A user may do five times what one of his keys may. `client_…` is for all of a client's users
    and servers together, `address_…` for one address, or one IPv6 network of 64 bits.
    """

    model_config = ConfigDict(extra="forbid")

    messages_per_s: float = 20
    messages_burst: int = 200
    commands_per_s: float = 100
    commands_burst: int = 1000
    requests_per_s: float = 100
    requests_burst: int = 1000
    joins_per_s: float = 10
    joins_burst: int = 200
    reads_per_s: float = 3
    reads_burst: int = 60
    connects_per_s: float = 5
    connects_burst: int = 100
    client_messages_per_s: float = 2_000
    client_messages_burst: int = 20_000
    client_commands_per_s: float = 10_000
    client_commands_burst: int = 100_000
    client_requests_per_s: float = 1_000
    client_requests_burst: int = 10_000
    client_connects_per_s: float = 1_000
    client_connects_burst: int = 20_000
    address_connects_per_s: float = 100
    address_connects_burst: int = 2_000
    address_failures_per_minute: int = 30
    key_failures_per_minute: int = 10
    violations_per_minute: int = 100
    pending_commands: int = 1024
    pending_bytes: int = 1 << 20
    connections_per_user: int = 100
    connections_per_device: int = 50
    connections_per_address: int = 5_000
    connections_per_client: int = 50_000
    command_bytes: int = 128 * 1024
    frame_bytes: int = 256 * 1024
    text_characters: int = 20_000
    text_bytes: int = 60_000
    attachments: int = 30
    mentions: int = 100
    watched_rooms: int = 100

    def times(self, factor: int) -> "Limits":
        """Give the same limits with the rates and counts raised; sizes stay."""
        raised = {
            name: getattr(self, name) * factor
            for name in type(self).model_fields
            if name.endswith(("_per_s", "_burst", "_per_minute")) or name in _COUNTS
        }
        return self.model_copy(update=raised)


_COUNTS = (
    "connections_per_user",
    "connections_per_device",
    "connections_per_address",
    "connections_per_client",
)


class Webhooks(BaseModel):
    """Outbound webhooks. `WEBHOOKS` is a JSON object with the numbers that differ.

    `slots`: deliveries that a worker process holds at once; `concurrency` is what an endpoint gets
    at once unless it says otherwise, `drain_per_s` how fast it gets what gathered in a pause.
    """

    model_config = ConfigDict(extra="forbid")

    endpoints_per_client: int = 500
    endpoints_per_host: int = 50
    concurrency: int = 4
    connections_per_host: int = 200
    slots: int = 1000
    drain_per_s: float = 20
    kept_connection_s: float = 15


class Quotas(BaseModel):
    """What one client may use in an hour and on a day (UTC); None: as much as it likes.

    They stop what runs away; whoever sells by volume sets each client's own.
    """

    model_config = ConfigDict(extra="forbid")

    messages_per_hour: int | None = 5_000_000
    messages_per_day: int | None = 50_000_000
    notifications_per_hour: int | None = 1_000_000
    notifications_per_day: int | None = 10_000_000
    ai_tokens_per_hour: int | None = 20_000_000
    ai_tokens_per_day: int | None = 200_000_000
    storage_bytes_per_hour: int | None = 50 * 2**30
    storage_bytes_per_day: int | None = 500 * 2**30
    connections_per_hour: int | None = 2_000_000
    connections_per_day: int | None = 20_000_000


class AnswerSettings(BaseModel):
    """How the assistant answers. Without a key and an address it answers by extracts."""

    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    openai_model: Annotated[str, Field(min_length=1, max_length=128)] = "gpt-4o-mini"
    # How a broken answer is gone on with: by the provider's host, or always in one way.
    openai_continue_mode: Literal["auto", "native", "prefix", "trailing", "ask", "restart"] = "auto"
    answer_first_token_s: Annotated[float, Field(gt=0, le=600)] = 20
    answer_token_s: Annotated[float, Field(gt=0, le=600)] = 15
    answer_whole_s: Annotated[float, Field(gt=0, le=3600)] = 120
    answer_max_tokens: Annotated[int, Field(ge=16, le=100_000)] = 2000
    # Of one client at a time, in all rooms; and of one worker process.
    answers_at_once: Annotated[int, Field(ge=1, le=100_000)] = 100
    answers_per_worker: Annotated[int, Field(ge=1, le=2000)] = 200
    # By model: what a million tokens of the prompt and of the answer cost.
    ai_prices: dict[str, tuple[float, float]] = {}


class StorageSettings(BaseModel):
    """Where files are: in a bucket, or in a directory as long as no bucket is named."""

    s3_endpoint_url: str | None = None
    s3_bucket: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_region: str = "auto"
    s3_public_base_url: str | None = None
    files_dir: Path = Path("data/files")
    file_bytes: Annotated[int, Field(ge=1, le=5 * 2**30)] = 100 * 2**20
    file_keep_unattached_days: Annotated[float, Field(gt=0, le=3650)] = 7

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.s3_bucket is not None and not (self.s3_access_key_id and self.s3_secret_access_key):
            msg = "S3_BUCKET needs S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY"
            raise ValueError(msg)
        return self


class EmbeddingSettings(BaseModel):
    """What makes vectors of documents and questions. Without an address: the embedded model."""

    embedding_model: Annotated[str, Field(min_length=1, max_length=128)] = "all-MiniLM-L6-v2-int8"
    embedding_base_url: str | None = None
    embedding_api_key: SecretStr | None = None
    # None: what the model has. A number is asked of models that can shorten their vectors.
    embedding_dimension: Annotated[int, Field(ge=8, le=4000)] | None = None
    # Orders what a search found, if there is one: `POST {rerank_base_url}/rerank`.
    rerank_base_url: str | None = None
    rerank_model: Annotated[str, Field(min_length=1, max_length=128)] = "rerank"
    rerank_api_key: SecretStr | None = None
    # Where bots and training sources are kept, if another application keeps them. Only read, but
    # for the states of sources.
    dashboard_database_url: SecretStr | None = None
