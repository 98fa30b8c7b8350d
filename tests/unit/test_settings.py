from pathlib import Path
from typing import Any

import pytest

from chatserver.setting_groups import Limits
from chatserver.settings import Settings, SettingsError, load

REQUIRED = {
    "DATABASE_URL": "postgresql://app:hush-1@db:5432/chat",
    "REDIS_URL": "redis://cache:6379/0",
    "OPERATOR_KEY": "hush-operator",
    "SECRET_KEYS": "hush-2, hush-3",
    "KEY_PEPPER": "hush-pepper",
}
STRONG = dict.fromkeys(("OPERATOR_KEY", "SECRET_KEYS", "KEY_PEPPER"), "hush-" + "x" * 32)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(monkeypatch: pytest.MonkeyPatch, **more: str) -> Settings:
    for name, value in (REQUIRED | more).items():
        monkeypatch.setenv(name, value)
    return load()


def refusal(monkeypatch: pytest.MonkeyPatch, **more: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(monkeypatch, **more)
    return str(caught.value)


class TestLoad:
    def test_the_required_ones_are_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = settings(monkeypatch)
        assert made.environment == "development"
        assert made.queue_url == REQUIRED["REDIS_URL"]
        assert [key.get_secret_value() for key in made.secret_keys] == ["hush-2", "hush-3"]
        assert (made.socket_path, made.cors_origins, made.processes) == ("/socket.io/", ("*",), 1)

    def test_every_missing_one_is_named_at_once(self) -> None:
        with pytest.raises(SettingsError) as caught:
            load()
        lines = str(caught.value).splitlines()
        assert [line.split()[0] for line in lines[1:-1]] == [
            "DATABASE_URL",
            "REDIS_URL",
            "OPERATOR_KEY",
            "SECRET_KEYS",
            "KEY_PEPPER",
        ]

    @pytest.mark.parametrize("name", REQUIRED)
    def test_an_empty_one_is_a_missing_one(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        assert f"  {name} is not set; it is " in refusal(monkeypatch, **{name: ""})

    def test_files_are_read_the_local_one_last_and_the_environment_wins(
        self, monkeypatch: pytest.MonkeyPatch, clean: Path
    ) -> None:
        (clean / ".env").write_text("LOG_LEVEL=error\nPUBLIC_URL=http://a\nSOCKET_PATH=/a\n")
        (clean / ".env.local").write_text("PUBLIC_URL=http://b\nSOCKET_PATH=/b\n")
        made = settings(monkeypatch, SOCKET_PATH="/c")
        assert (made.log_level, made.public_url, made.socket_path) == ("error", "http://b", "/c/")

    def test_settings_of_other_programs_do_not_matter(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert settings(monkeypatch, SOMETHING_ELSE="1").processes == 1


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("ENVIRONMENT", "prod"),
            ("DATABASE_URL", "mysql://app:hush-1@db/chat"),
            ("DATABASE_URL", "db:5432/chat"),
            ("DATABASE_URL", "postgresql://app:hush-1/x@db:port/chat"),
            ("MIGRATOR_DATABASE_URL", "postgres"),
            ("REDIS_URL", "http://cache"),
            ("REDIS_URL", "redis://cache:hush-1/0"),
            ("QUEUE_REDIS_URL", "cache:6379"),
            ("OPERATOR_KEY", "hush"),
            ("KEY_PEPPER", "hush"),
            ("SECRET_KEYS", " , ,"),
            ("NODE_ID", "a node"),
            ("NODE_ID", "x" * 33),
            ("PROCESSES", "0"),
            ("PROCESSES", "many"),
            ("ROOM_DEACTIVATION_DAYS_GROUP", "0"),
            ("ROOM_DEACTIVATION_DAYS_GROUP", "-1"),
            ("KEY_GRACE_S", "-1"),
            ("LIMITS_FACTOR", "0"),
            ("LOG_LEVEL", "loud"),
            ("LOG_FORMAT", "xml"),
        ],
    )
    def test_a_wrong_one_is_named_and_no_secret_is_said(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        said = refusal(monkeypatch, **{name: value})
        lines = [line for line in said.splitlines() if line.startswith("  ")]
        assert [line.split(":")[0].strip() for line in lines] == [name]
        assert "hush" not in said

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://app:x@/chat?host=/run/postgres",
            "postgres://app@[::1]:5432/chat",
            "postgresql://app:p%40ss@db/chat",
        ],
    )
    def test_every_way_to_name_a_database_is_taken(
        self, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        assert settings(monkeypatch, DATABASE_URL=url).database_url.get_secret_value() == url

    @pytest.mark.parametrize("url", ["unix:///run/redis?db=1", "rediss://:x@cache:6380/2"])
    def test_every_way_to_name_a_redis_is_taken(
        self, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        assert settings(monkeypatch, QUEUE_REDIS_URL=url).queue_url == url

    def test_lists_are_split_and_letters_are_lowered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = settings(
            monkeypatch,
            CORS_ORIGINS="https://a.example, https://b.example",
            TRUSTED_PROXIES="10.0.0.0/8",
            LOG_LEVEL="WARNING",
            LOG_FORMAT="JSON",
        )
        assert made.cors_origins == ("https://a.example", "https://b.example")
        assert made.trusted_proxies == ("10.0.0.0/8",)
        assert (made.log_level, made.log_format) == ("warning", "json")

    @pytest.mark.parametrize("path", ["socket.io", "/socket.io", "/socket.io/", "//socket.io//"])
    def test_the_socket_path_is_put_straight(
        self, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        assert settings(monkeypatch, SOCKET_PATH=path).socket_path == "/socket.io/"

    def test_each_process_has_a_name_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = {settings(monkeypatch).node_id for _ in range(5)}
        assert len(names) == 5
        assert all(len(name) <= 32 for name in names)
        assert settings(monkeypatch, NODE_ID="node-1").node_id == "node-1"

    def test_lifetimes_are_days_by_type(self, monkeypatch: pytest.MonkeyPatch) -> None:
        day = 86_400
        assert settings(monkeypatch).room_lifetimes_s == {
            "support": 7 * day,
            "group": 30 * day,
            "direct": 90 * day,
            "channel": 180 * day,
            "assistant": None,
        }
        made = settings(monkeypatch, ROOM_DEACTIVATION_DAYS_ASSISTANT="0.5")
        assert made.room_lifetimes_s["assistant"] == day / 2


class TestSecrets:
    def test_none_is_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = settings(monkeypatch, MIGRATOR_DATABASE_URL="postgresql://m:hush-4@db/chat")
        assert "hush" not in repr(made)
        assert "hush" not in str(made.model_dump())


class TestProduction:
    def test_strong_secrets_are_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert settings(monkeypatch, ENVIRONMENT="production", **STRONG).environment == "production"

    @pytest.mark.parametrize("name", STRONG)
    def test_a_weak_one_is_refused(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        more = STRONG | {name: REQUIRED[name]}
        said = refusal(monkeypatch, ENVIRONMENT="production", **more)
        assert f"{name} needs at least 32 random characters in production" in said
        assert "hush" not in said

    def test_one_weak_key_in_a_ring_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        more = STRONG | {"SECRET_KEYS": f"{'x' * 32},short"}
        assert "SECRET_KEYS" in refusal(monkeypatch, ENVIRONMENT="production", **more)

    def test_raised_limits_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        more = STRONG | {"LIMITS_FACTOR": "10"}
        assert "LIMITS_FACTOR" in refusal(monkeypatch, ENVIRONMENT="production", **more)


class TestLimits:
    def test_a_factor_raises_rates_and_leaves_sizes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain, raised = Limits(), settings(monkeypatch, LIMITS_FACTOR="10").limits
        changed: dict[str, Any] = {
            name: value
            for name, value in raised.model_dump().items()
            if value != getattr(plain, name)
        }
        assert changed == {
            "messages_per_s": 200,
            "messages_burst": 2000,
            "commands_per_s": 1000,
            "commands_burst": 10_000,
            "requests_per_s": 1000,
            "requests_burst": 10_000,
            "joins_per_s": 100,
            "joins_burst": 2000,
            "reads_per_s": 30,
            "reads_burst": 600,
            "connects_per_s": 50,
            "connects_burst": 1000,
            "client_messages_per_s": 20_000,
            "client_messages_burst": 200_000,
            "client_commands_per_s": 100_000,
            "client_commands_burst": 1_000_000,
            "client_requests_per_s": 10_000,
            "client_requests_burst": 100_000,
            "client_connects_per_s": 10_000,
            "client_connects_burst": 200_000,
            "address_connects_per_s": 1000,
            "address_connects_burst": 20_000,
            "address_failures_per_minute": 300,
            "key_failures_per_minute": 100,
            "violations_per_minute": 1000,
            "connections_per_user": 1000,
            "connections_per_device": 500,
            "connections_per_address": 50_000,
            "connections_per_client": 500_000,
        }


def test_a_bucket_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "S3_BUCKET needs S3_ACCESS_KEY_ID" in refusal(monkeypatch, S3_BUCKET="files")
    key = {"S3_ACCESS_KEY_ID": "id", "S3_SECRET_ACCESS_KEY": "hush-s3"}
    made = settings(monkeypatch, S3_BUCKET="files", **key)
    assert "hush-s3" not in repr(made)
