"""Typed settings, read once from the environment and handed down. The only file that reads it."""

import secrets
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chatserver.kernel.errors import OperatorError
from chatserver.setting_groups import (
    AnswerSettings,
    EmbeddingSettings,
    Limits,
    Quotas,
    StorageSettings,
    Webhooks,
)

POSTGRES_SCHEMES = ("postgresql", "postgres")
SMTP_SCHEMES = ("smtp", "smtps")
REDIS_SCHEMES = ("redis", "rediss", "unix")


class SettingsError(OperatorError):
    """The settings can't be used; the text says which and how to mend each."""


def _split(value: Any) -> Any:  # noqa: ANN401 - whatever the environment holds
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class Settings(AnswerSettings, EmbeddingSettings, StorageSettings, BaseSettings):
    """Every setting of contract section 7 that a part of this version reads."""

    model_config = SettingsConfigDict(
        env_file=(".env", ".env.local"), extra="ignore", frozen=True, env_ignore_empty=True
    )

    environment: Literal["development", "staging", "production"] = "development"
    database_url: SecretStr
    migrator_database_url: SecretStr | None = None
    redis_url: SecretStr
    queue_redis_url: SecretStr | None = None
    redis_sharded_pubsub: bool | None = None
    node_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,32}$")] = Field(
        default_factory=lambda: f"{_host()}-{secrets.token_hex(3)}"
    )
    node_url: str | None = None
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    operator_key: Annotated[SecretStr, Field(min_length=8)]
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(min_length=1)
    key_pepper: Annotated[SecretStr, Field(min_length=8)]
    public_url: str | None = None
    # Where push services find who runs this server; without it PUBLIC_URL.
    push_contact: Annotated[str, Field(pattern=r"^(mailto:|https://)[!-~]{3,200}$")] | None = None
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ("*",)
    socket_path: str = "/socket.io/"
    room_deactivation_days_support: Annotated[float, Field(gt=0)] = 7
    room_deactivation_days_group: Annotated[float, Field(gt=0)] = 30
    room_deactivation_days_direct: Annotated[float, Field(gt=0)] = 90
    room_deactivation_days_channel: Annotated[float, Field(gt=0)] = 180
    room_deactivation_days_assistant: Annotated[float, Field(gt=0)] | None = None
    key_grace_s: Annotated[int, Field(ge=0, le=86_400)] = 120
    # With its jitter of a fifth, 25 keeps the promise of 30 s.
    revocation_sweep_s: Annotated[float, Field(ge=0.1, le=25)] = 25
    # For so long running jobs may end when a worker is stopped; the rest goes back into the queue.
    worker_grace_s: Annotated[float, Field(ge=0, le=10)] = 10
    # Whether what a client names may be reached on private and loopback addresses.
    allow_private_addresses: bool = False
    rate_limits_enabled: bool = True
    limits_factor: Annotated[int, Field(ge=1, le=1000)] = 1
    limit_values: Limits = Limits()
    quota_values: Quotas = Quotas()
    webhooks: Webhooks = Webhooks()
    connect_refusal_s: Annotated[float, Field(ge=0, le=10)] = 2.0
    # Where workers and schedulers tell how they are; web nodes do on their own port.
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_503)] | None = None
    # An event loop that stands still for longer is told of, with where it stands.
    loop_blocked_ms: Annotated[int, Field(ge=50, le=60_000)] = 1000
    # The server's own mail account; tenants bring theirs as providers.
    smtp_url: SecretStr | None = None
    mail_from: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    # Where traces go, of how large a part of all that happens; and where errors go.
    otel_exporter_otlp_endpoint: str | None = None
    otel_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    sentry_dsn: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    log_file: Path | None = None

    @field_validator("secret_keys", "trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:  # noqa: ANN401
        return _split(value)

    @field_validator("key_pepper")
    @classmethod
    def _peppers(cls, value: SecretStr) -> SecretStr:
        if any(len(part.strip()) < 8 for part in value.get_secret_value().split(",")):  # noqa: PLR2004
            msg = "each pepper of the list must have at least 8 characters"
            raise ValueError(msg)
        return value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:  # noqa: ANN401
        return value.lower() if isinstance(value, str) else value

    @field_validator("socket_path")
    @classmethod
    def _path(cls, value: str) -> str:
        return f"/{value.strip('/')}/"

    @field_validator("database_url", "migrator_database_url", "dashboard_database_url")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_url(value, POSTGRES_SCHEMES):
            msg = "must look like postgresql://user:password@host:5432/database"
            raise ValueError(msg)
        return value

    @field_validator("redis_url", "queue_redis_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_url(value, REDIS_SCHEMES):
            msg = "must look like redis://host:6379/0, rediss://… or unix:///path/to/socket"
            raise ValueError(msg)
        return value

    @field_validator("smtp_url")
    @classmethod
    def _smtp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_url(value, SMTP_SCHEMES):
            msg = "must look like smtp://user:password@host:587 or smtps://user:password@host:465"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _production(self) -> Self:
        if self.environment != "production":
            return self
        secrets_of = {
            "OPERATOR_KEY": (self.operator_key,),
            "KEY_PEPPER": self.key_peppers,
            "SECRET_KEYS": self.secret_keys,
        }
        for name, values in secrets_of.items():
            if not all(_is_strong(value) for value in values):
                msg = f"{name} needs at least 32 random characters in production"
                raise ValueError(msg)
        if self.allow_private_addresses:
            msg = "ALLOW_PRIVATE_ADDRESSES must be false in production"
            raise ValueError(msg)
        if self.limits_factor > 1:
            msg = "LIMITS_FACTOR must be 1 in production"
            raise ValueError(msg)
        return self

    @property
    def limits(self) -> Limits:
        return self.limit_values.times(self.limits_factor)

    @property
    def key_peppers(self) -> tuple[SecretStr, ...]:
        """The peppers of API keys, the newest first: during a rotation there are two."""
        parts = self.key_pepper.get_secret_value().split(",")
        return tuple(SecretStr(part.strip()) for part in parts if part.strip())

    @property
    def queue_url(self) -> str:
        """Where Dramatiq's doorbells hang: the same Redis unless it is told another."""
        return (self.queue_redis_url or self.redis_url).get_secret_value()

    @property
    def room_lifetimes_s(self) -> dict[str, float | None]:
        """Seconds of silence until a room is deactivated, by type; None: never."""
        days: dict[str, float | None] = {
            "support": self.room_deactivation_days_support,
            "group": self.room_deactivation_days_group,
            "direct": self.room_deactivation_days_direct,
            "channel": self.room_deactivation_days_channel,
            "assistant": self.room_deactivation_days_assistant,
        }
        return {name: None if value is None else value * 86_400 for name, value in days.items()}


def _is_url(value: SecretStr, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value.get_secret_value())
        # Reading it refuses what is no number, often a password with an unescaped character.
        return parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _host() -> str:
    kept = "".join(c for c in socket.gethostname() if c.isascii() and (c.isalnum() or c == "-"))
    return kept[:20] or "node"


def _is_strong(value: SecretStr) -> bool:
    return len(value.get_secret_value()) >= 32  # noqa: PLR2004 - carries 128 bits even in hex


# What a missing setting is for, so that the message at start says how to mend it.
MEND = {
    "database_url": "the application role's database: postgresql://user:password@host:5432/database",
    "redis_url": "the Redis of bus, presence and limits: redis://host:6379/0",
    "operator_key": "the key that creates clients: at least 32 random characters",
    "secret_keys": "a list of keys that seal stored credentials, newest first, comma-separated",
    "key_pepper": "the pepper of API keys: at least 32 random characters, the same on every node",
}


def load(**overrides: Any) -> Settings:  # noqa: ANN401 - fields of Settings
    """Read the settings.

    Raises:
        SettingsError: one line per wrong or missing variable, each with how to mend it.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(error))) from None


def _lines(error: ValidationError) -> list[str]:
    lines = ["The settings can't be used:"]
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(found["loc"][0]) if found["loc"] else ""
        text = found["msg"].removeprefix("Value error, ")
        if found["type"] == "missing":
            lines.append(f"  {name.upper()} is not set; it is {MEND[name]}.")
        else:
            lines.append(f"  {name.upper()}: {text}." if name else f"  {text}.")
    lines.append(
        "Set them in the environment, in .env or in .env.local (.env.example explains each),"
        " or run `chatserver dev`, which needs none."
    )
    return lines
