import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from chatserver.cli import check
from chatserver.infra import revisions
from chatserver.kernel.clock import utc_now
from chatserver.settings import Settings
from tests.support.cli import Cli, Ran, program
from tests.support.servers import Database, Servers, run
from tests.support.talk import Talk

NOBODY = "redis://127.0.0.1:1/0"
AWAY = {"REDIS_URL": NOBODY, "QUEUE_REDIS_URL": NOBODY}


@pytest.fixture
def empty(servers: Servers) -> Iterator[Database]:
    made = servers.empty_database()
    yield made
    servers.drop(made)


class Shell:
    """The command line on one database."""

    def __init__(self, cli: Cli, database: Database) -> None:
        self._cli = cli
        self.database = database

    def __call__(self, *arguments: str, **more: str) -> Ran:
        return self._cli(*arguments, environment=self.database.settings() | more)

    def json(self, *arguments: str) -> Any:
        ran = self(*arguments, "--json")
        assert (ran.code, ran.err) == (0, "")
        return ran.json()

    def caller(self, key: str, door: str = "rest") -> Any:
        """Who a key belongs to, asked of a server on this database; raises what it refuses."""

        async def identify() -> Any:
            talk = Talk(self.database)
            await talk.start()
            try:
                return await talk.container.identifier.identify(key, door=door)  # type: ignore[arg-type]  # a name
            finally:
                await talk.stop()

        return run(identify())


@pytest.fixture
def shell(cli: Cli, database: Database) -> Shell:
    return Shell(cli, database)


def refused(ran: Ran) -> str:
    """What was said instead of an answer: sentences on the error stream, no trace."""
    assert (ran.code, ran.out) == (1, "")
    assert "Traceback" not in ran.err
    return ran.err


class TestClient:
    def test_a_client_is_made_and_its_key_works(self, shell: Shell) -> None:
        made = shell.json("client", "create", "Acme Ltd.")
        assert set(made) == {"id", "slug", "name", "master_key"}
        assert (made["slug"], made["name"]) == ("acme-ltd", "Acme Ltd.")
        caller = shell.caller(made["master_key"])
        assert (str(caller.client_id), caller.is_master) == (made["id"], True)

    def test_without_json_it_is_a_line_for_each_thing(self, shell: Shell) -> None:
        ran = shell("client", "create", "Acme", "--slug", "the-acme")
        assert (ran.code, ran.err) == (0, "")
        lines = dict(line.split(": ", 1) for line in ran.out.splitlines())
        assert (lines["slug"], lines["name"]) == ("the-acme", "Acme")
        assert lines["master_key"].startswith("csm_")

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ([""], "name"),
            (["x" * 257], "name"),
            (["x", "--slug", "A B"], "slug"),
            (["x", "--slug", ""], "slug"),
        ],
    )
    def test_a_name_that_can_not_be_is_refused_in_a_sentence(
        self, shell: Shell, arguments: list[str], field: str
    ) -> None:
        said = refused(shell("client", "create", *arguments))
        assert said.startswith(f"{field}: ")
        assert said.endswith("(payload.invalid)\n")
        assert shell.json("client", "list") == {"items": []}

    def test_a_slug_that_is_taken_is_refused(self, shell: Shell) -> None:
        shell.json("client", "create", "Acme")
        assert "taken" in refused(shell("client", "create", "Other", "--slug", "acme"))

    def test_all_are_listed_and_each_is_shown_by_slug_or_id(self, shell: Shell) -> None:
        made = [shell.json("client", "create", f"Client {n}") for n in range(3)]
        listed = shell.json("client", "list")["items"]
        assert {item["id"] for item in listed} == {each["id"] for each in made}
        assert not any("master_key" in item for item in listed)
        plain = shell("client", "list").out.splitlines()
        assert len(plain) == 3
        assert all("active" in line for line in plain)
        for name in (made[1]["slug"], made[1]["id"]):
            shown = shell.json("client", "show", name)
            assert (shown["id"], shown["status"]) == (made[1]["id"], "active")

    @pytest.mark.parametrize("name", ["nobody", "019a9c1e-0000-7000-8000-00000000000a", "a b", ""])
    @pytest.mark.parametrize("verb", ["show", "disable", "rotate-master-key"])
    def test_an_unknown_client_is_said_to_be_unknown(
        self, shell: Shell, verb: str, name: str
    ) -> None:
        assert "(client.not_found)" in refused(shell("client", verb, name))

    def test_a_rotated_key_takes_the_place_of_the_others_after_the_overlap(
        self, shell: Shell
    ) -> None:
        first = shell.json("client", "create", "Acme")["master_key"]
        second = shell.json("client", "rotate-master-key", "acme")["master_key"]
        assert shell.caller(first).client_slug == shell.caller(second).client_slug == "acme"
        third = shell.json("client", "rotate-master-key", "acme", "--overlap-hours", "0")
        for key in (first, second):
            with pytest.raises(Exception, match=r"(?i)expired|revoked"):
                shell.caller(key)
        assert shell.caller(third["master_key"]).is_master

    def test_a_disabled_client_is_kept_and_shut_out(self, shell: Shell) -> None:
        made = shell.json("client", "create", "Acme")
        assert shell.json("client", "disable", "acme")["status"] == "disabled"
        assert shell.json("client", "show", made["id"])["status"] == "disabled"
        with pytest.raises(Exception, match=r"(?i)revoked|disabled"):
            shell.caller(made["master_key"])


class TestUser:
    def test_a_login_makes_the_user_and_prints_a_key_that_works(self, shell: Shell) -> None:
        shell.json("client", "create", "Acme")
        ran = shell("user", "login", "acme", "alice")
        assert ran.code == 0
        [key] = ran.out.splitlines()
        caller = shell.caller(key)
        assert (caller.external_id, caller.client_slug) == ("alice", "acme")

    def test_a_known_device_goes_on_with_its_family(self, shell: Shell) -> None:
        shell.json("client", "create", "Acme")
        first = shell.json("user", "login", "acme", "alice")
        again = shell.json("user", "login", "acme", "alice", "--device-id", first["device_id"])
        other = shell.json("user", "login", "acme", "alice")
        assert again["device_id"] == first["device_id"] != other["device_id"]
        assert again["key"] != first["key"]
        assert again["user"]["external_id"] == "alice"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["acme", "al ice"], "external_id: "),
            (["acme", "alice\n"], "external_id: "),
            (["acme", "alice", "--device-id", ""], "device_id: "),
            (["nobody", "alice"], "(client.not_found)"),
        ],
    )
    def test_what_can_not_be_is_refused_in_a_sentence(
        self, shell: Shell, arguments: list[str], said: str
    ) -> None:
        shell.json("client", "create", "Acme")
        assert said in refused(shell("user", "login", *arguments))


class TestDatabaseProblems:
    @pytest.mark.parametrize("arguments", [["client", "list"], ["user", "login", "a", "b"]])
    def test_a_database_without_a_schema_is_told_how_to_get_one(
        self, cli: Cli, empty: Database, arguments: list[str]
    ) -> None:
        said = refused(cli(*arguments, environment=empty.settings()))
        assert f"has no schema; this version needs {revisions.head()}" in said
        assert "Run `chatserver migrate`." in said

    def test_a_database_of_another_version_is_named(self, shell: Shell) -> None:
        async def change() -> None:
            connection = await asyncpg.connect(shell.database.admin_url)
            await connection.execute("update alembic_version set version_num = '0001'")
            await connection.close()

        run(change())
        said = refused(shell("client", "list"))
        assert f"is at revision 0001; this version needs {revisions.head()}" in said

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("chatserver_app:", "chatserver_app:wrong"), "refused the role of DATABASE_URL"),
            (("chatserver_app:", "nobody:"), "refused the role of DATABASE_URL"),
            (("/test_", "/nothing_"), "There is no such database"),
        ],
    )
    def test_a_role_or_database_that_is_not_there_is_told_how_to_make_it(
        self, shell: Shell, change: tuple[str, str], said: str
    ) -> None:
        url = shell.database.app_url.replace(*change)
        assert said in refused(shell("client", "list", DATABASE_URL=url))

    def test_a_server_that_is_away_is_said_to_be_away(self, shell: Shell) -> None:
        url = "postgresql://app:hush@127.0.0.1:1/x"
        said = refused(shell("client", "list", DATABASE_URL=url))
        assert said.startswith("PostgreSQL can't be reached: ")
        assert "hush" not in said

    def test_clients_are_made_without_redis_too(self, shell: Shell) -> None:
        ran = shell("client", "create", "Acme", "--json", **AWAY)
        assert ran.code == 0
        assert ran.json()["slug"] == "acme"


class TestCheck:
    def test_all_is_well(self, shell: Shell) -> None:
        found = shell.json("check")["checks"]
        assert [check["part"] for check in found] == [
            "settings",
            "database",
            "schema",
            "application role",
            "pgvector",
            "redis",
            "queue",
            "storage",
            "embedding",
            "language model",
            "clock",
        ]
        assert all(check["ok"] and not check["mend"] for check in found)
        plain = shell("check")
        assert plain.code == 0
        assert [line.split()[0] for line in plain.out.splitlines()] == ["ok"] * len(found)

    def problems(self, ran: Ran) -> dict[str, str]:
        assert (ran.code, ran.err) == (1, "")
        assert "Traceback" not in ran.out
        return {each["part"]: each["mend"] for each in ran.json()["checks"] if not each["ok"]}

    def test_redis_away(self, shell: Shell) -> None:
        found = self.problems(shell("check", "--json", **AWAY))
        assert set(found) == {"redis", "queue"}
        assert "REDIS_URL" in found["redis"]
        assert "QUEUE_REDIS_URL" in found["queue"]
        plain = shell("check", **AWAY)
        assert plain.code == 1
        assert [line.split()[0] for line in plain.out.splitlines()].count("problem") == 2

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://app:hush@127.0.0.1:1/x",
            "postgresql://app:hush@host.invalid/x",
            "postgresql://app:hush@/x?host=/nowhere",
        ],
    )
    def test_postgresql_away(self, shell: Shell, url: str) -> None:
        ran = shell("check", "--json", DATABASE_URL=url)
        assert list(self.problems(ran)) == ["database"]
        assert "hush" not in ran.out

    def test_a_database_without_a_schema(self, cli: Cli, empty: Database) -> None:
        found = self.problems(cli("check", "--json", environment=empty.settings()))
        assert found == {"schema": "Run `chatserver migrate`."}

    def test_a_role_that_may_too_much(self, shell: Shell) -> None:
        for url in (shell.database.migrator_url, shell.database.admin_url):
            found = self.problems(shell("check", "--json", DATABASE_URL=url))
            assert "application role" in found

    def test_a_wrong_password(self, shell: Shell) -> None:
        url = shell.database.app_url.replace("chatserver_app:", "chatserver_app:wrong")
        assert list(self.problems(shell("check", "--json", DATABASE_URL=url))) == ["database"]

    def test_deploy_adds_the_rules_of_production(self, shell: Shell) -> None:
        found = self.problems(shell("check", "--deploy", "--json"))
        assert set(found) == {
            "environment",
            "public address",
            "trusted proxies",
            "log format",
            "durability",
        }
        production = {
            "ENVIRONMENT": "production",
            "PUBLIC_URL": "https://chat.example",
            "TRUSTED_PROXIES": "10.1.0.0/16",
            "LOG_FORMAT": "json",
        }
        # The servers of tests forget all in a crash of the machine, and nothing else is wrong.
        ran = shell("check", "--deploy", "--json", **production)
        assert self.problems(ran).keys() == {"durability"}
        assert len(ran.json()["checks"]) > 20

    def test_a_redis_that_may_forget(self, shell: Shell) -> None:
        with redis.Redis.from_url(shell.database.redis_url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            try:
                found = self.problems(shell("check", "--deploy", "--json"))
            finally:
                client.config_set("maxmemory-policy", "noeviction")
        assert "noeviction" in found["redis eviction"]

    def test_a_redis_that_may_not_be_written_to(self, shell: Shell) -> None:
        with redis.Redis.from_url(shell.database.redis_url) as client:
            client.execute_command(
                "ACL", "SETUSER", "reader", "on", ">hush", "~*", "+@read", "+info", "+@connection"
            )
            try:
                url = shell.database.redis_url.replace("redis://", "redis://reader:hush@")
                found = self.problems(shell("check", "--json", REDIS_URL=url))
            finally:
                client.execute_command("ACL", "DELUSER", "reader")
        assert "REDIS_URL" in found["redis"]

    def test_a_collector_of_traces_that_is_away(self, shell: Shell) -> None:
        away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
        found = self.problems(shell("check", "--json", **away))
        assert "OTLP" in found["traces"]

    def test_a_clock_that_is_off(self, shell: Shell) -> None:
        given: dict[str, Any] = {
            name.lower(): value for name, value in shell.database.settings().items()
        }
        given["secret_keys"] = (given["secret_keys"],)
        settings = Settings(_env_file=None, **given)

        def late() -> datetime:
            return utc_now() + timedelta(seconds=60)

        (found,) = run(check._clock(settings, late))
        assert not found.ok
        assert "NTP" in found.mend
        (found,) = run(check._clock(settings))
        assert found.ok


class TestMigrate:
    def test_it_makes_schema_and_role_and_says_so(self, cli: Cli, empty: Database) -> None:
        said = cli("migrate", environment=empty.settings())
        assert (said.code, said.err) == (0, "")
        assert said.out.startswith(f"The database is at revision {revisions.head()}; ")
        again = cli("migrate", "--json", environment=empty.settings())
        assert (again.code, again.err) == (0, "")
        assert again.json() == {
            "revision": revisions.head(),
            "application_role": "chatserver_app",
        }
        assert Shell(cli, empty).json("client", "list") == {"items": []}

    def test_it_needs_nothing_but_the_two_addresses(self, cli: Cli, empty: Database) -> None:
        two = {name: empty.settings()[name] for name in ("DATABASE_URL", "MIGRATOR_DATABASE_URL")}
        assert cli("migrate", environment=two).code == 0

    def test_a_server_that_is_away_is_told_in_a_sentence(self, cli: Cli, empty: Database) -> None:
        away = empty.settings() | {"MIGRATOR_DATABASE_URL": "postgresql://m:hush@127.0.0.1:1/x"}
        said = refused(cli("migrate", environment=away))
        assert said.startswith("PostgreSQL refused: ")
        assert "hush" not in said


class TestDocuments:
    @pytest.mark.parametrize(
        ("command", "member"), [("openapi", "openapi"), ("asyncapi", "asyncapi")]
    )
    def test_they_are_printed_without_any_setting(
        self, cli: Cli, command: str, member: str
    ) -> None:
        ran = cli(command, environment={})
        assert (ran.code, ran.err) == (0, "")
        assert f'"{member}": "3.' in ran.out


class TestServe:
    """In processes of their own: `serve` takes signals and the log."""

    def test_a_database_without_a_schema_is_told_how_to_get_one(
        self, empty: Database, tmp_path: Path
    ) -> None:
        ran = program("serve", "--port", "0", environment=empty.settings(), home=tmp_path)
        assert "has no schema" in refused(ran)

    def test_a_taken_port_is_told_in_a_sentence(self, database: Database, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            ran = program(
                *("serve", "--host", "127.0.0.1", "--port", str(port)),
                environment=database.settings(),
                home=tmp_path,
            )
        assert ran.code == 1
        assert f"Port {port} is taken." in ran.err
        assert "Traceback" not in ran.err
