"""Settings in groups, each beside what it is about; `settings.py` reads them all."""

from pathlib import Path
from typing import Annotated, Self

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
