import pytest

from tests.support.cli import Cli

COMMANDS = [
    ["dev"],
    ["serve"],
    ["worker"],
    ["scheduler"],
    ["migrate"],
    ["check"],
    ["client"],
    ["client", "create"],
    ["client", "list"],
    ["client", "show"],
    ["client", "rotate-master-key"],
    ["client", "disable"],
    ["user"],
    ["user", "login"],
    ["seed"],
    ["openapi"],
    ["asyncapi"],
]
COMPLETE = {
    "DATABASE_URL": "postgresql://app:x@127.0.0.1:1/x",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "OPERATOR_KEY": "o" * 32,
    "SECRET_KEYS": "s" * 32,
    "KEY_PEPPER": "p" * 32,
}


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_every_command_explains_itself(self, cli: Cli, command: list[str]) -> None:
        ran = cli(*command, "--help", environment={})
        assert (ran.code, ran.err) == (0, "")
        assert "Usage:" in ran.out

    def test_the_first_screen_lists_them_all(self, cli: Cli) -> None:
        ran = cli("--help", environment={})
        for command in COMMANDS:
            assert command[0] in ran.out


class TestUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["nothing"],
            ["client", "create"],
            ["client", "create", "a", "b"],
            ["client", "show", "x", "--yaml"],
            ["client", "rotate-master-key", "x", "--overlap-hours", "169"],
            ["user", "login", "x"],
            ["serve", "--port", "70000"],
            ["serve", "--port", "x"],
            ["serve", "--processes", "0"],
        ],
        ids=" ".join,
    )
    def test_a_wrong_call_is_exit_code_2(self, cli: Cli, arguments: list[str]) -> None:
        ran = cli(*arguments, environment=COMPLETE)
        assert ran.code == 2
        assert ran.out == ""
        assert ran.err

    def test_an_impossible_number_of_processes_is_refused(self, cli: Cli) -> None:
        ran = cli("serve", "--processes", "0", environment=COMPLETE)
        assert ran.code == 2
        assert "--processes" in ran.err


class TestSettings:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["serve"],
            ["worker"],
            ["scheduler"],
            ["check"],
            ["client", "list"],
            ["user", "login", "acme", "alice"],
        ],
        ids=" ".join,
    )
    def test_what_is_missing_is_named_with_what_it_is_for(
        self, cli: Cli, arguments: list[str]
    ) -> None:
        ran = cli(*arguments, environment={"DATABASE_URL": COMPLETE["DATABASE_URL"]})
        assert (ran.code, ran.out) == (1, "")
        for name in ("REDIS_URL", "OPERATOR_KEY", "SECRET_KEYS", "KEY_PEPPER"):
            assert f"  {name} is not set; it is " in ran.err
        assert "DATABASE_URL is not set" not in ran.err
        assert "Traceback" not in ran.err

    def test_migrate_names_what_it_lacks_and_needs_nothing_else(self, cli: Cli) -> None:
        ran = cli("migrate", environment={"DATABASE_URL": COMPLETE["DATABASE_URL"]})
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("MIGRATOR_DATABASE_URL is not set.")

    @pytest.mark.parametrize(
        ("migrator", "said"),
        [
            ("nonsense", "names no user"),
            ("postgresql://a:b@h:port/x", "must look like postgresql://"),
            (COMPLETE["DATABASE_URL"], "the same role"),
        ],
    )
    def test_migrate_refuses_addresses_that_cannot_be_meant(
        self, cli: Cli, migrator: str, said: str
    ) -> None:
        environment = COMPLETE | {"MIGRATOR_DATABASE_URL": migrator}
        ran = cli("migrate", environment=environment)
        assert (ran.code, ran.out) == (1, "")
        assert said in ran.err
