import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chatserver.dev.data_directory import socket_directory
from chatserver.dev.errors import (
    DataDirectoryError,
    DirectoryInUseError,
    HalfInitialisedError,
    ServerStartError,
)
from chatserver.dev.postgres import DatabasePasswords, EmbeddedPostgres
from chatserver.dev.privileges import Privileges
from tests.integration.dev.processes import family_of, gone_within
from tests.support.servers import children_of, run

PASSWORDS = DatabasePasswords(superuser="s-secret", migrator="m-secret", application="a-secret")


def postgres_at(directory: Path, *, privileges: Privileges | None = None) -> EmbeddedPostgres:
    directory.mkdir(parents=True, exist_ok=True)
    return EmbeddedPostgres(
        directory / "postgres",
        PASSWORDS,
        run_directory=socket_directory(directory),
        log_file=directory / "postgres.log",
        privileges=privileges,
        durable=False,
    )


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    made = postgres_at(tmp_path / "data")
    yield made
    made.stop(timeout_seconds=5)


def ask(url: str, query: str) -> Any:
    async def fetch() -> Any:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return run(fetch())


class TestFirstStart:
    def test_the_migrator_owns_the_database_and_is_no_superuser(
        self, postgres: EmbeddedPostgres
    ) -> None:
        postgres.start()
        role = "select rolsuper::text || rolcreaterole || rolcreatedb || rolcanlogin from pg_roles"
        assert ask(postgres.migrator_url(), f"{role} where rolname = current_user") == (
            "falsetruefalsetrue"
        )
        owner = "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
        assert ask(postgres.migrator_url(), owner) == "chatserver_migrator"

    def test_vector_is_there_and_the_settings_hold(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        url = postgres.migrator_url()
        assert ask(url, "select '[1,2]'::vector <-> '[1,3]'::vector") == 1.0
        assert ask(url, "show server_version").startswith("18.")
        assert ask(url, "show max_connections") == "200"
        assert ask(url, "show server_encoding") == "UTF8"

    def test_it_listens_on_a_private_socket_alone(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        assert ask(postgres.admin_url(), "show listen_addresses") == ""
        assert postgres.run_directory.stat().st_mode & 0o777 == 0o700

    def test_nobody_enters_with_a_wrong_password(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        for role in ("postgres", "chatserver_migrator"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                ask(postgres.url(role, "wrong"), "select 1")
        trusting = [
            line
            for line in (postgres.directory / "pg_hba.conf").read_text().splitlines()
            if line.strip() and not line.startswith("#") and not line.endswith("scram-sha-256")
        ]
        assert trusting == []

    def test_no_password_is_left_in_a_file_of_its_own(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        beside = {entry.name for entry in postgres.directory.parent.iterdir()}
        assert beside <= {"postgres", "postgres.log", "run"}

    def test_it_never_runs_as_root_and_opens_no_parent(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        postgres = postgres_at(closed / "data")
        before = [path.stat().st_mode for path in postgres.directory.parents]
        postgres.start()
        try:
            assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0
            assert ask(postgres.migrator_url(), "select 1") == 1
            assert [path.stat().st_mode for path in postgres.directory.parents] == before
            assert postgres.directory.stat().st_mode & 0o777 == 0o700
        finally:
            postgres.stop()

    def test_odd_characters_in_the_path_do_no_harm(self, tmp_path: Path) -> None:
        postgres = postgres_at(tmp_path / "a b,c&d\"e'%3Fé")
        postgres.start()
        try:
            assert ask(postgres.migrator_url(), "select 1") == 1
        finally:
            postgres.stop()

    def test_a_long_path_gets_its_sockets_elsewhere(self, tmp_path: Path) -> None:
        postgres = postgres_at(tmp_path / ("long" * 30))
        postgres.start()
        try:
            assert ask(postgres.migrator_url(), "select 1") == 1
            assert not postgres.run_directory.is_relative_to(tmp_path)
        finally:
            postgres.stop()


class TestStartingAgain:
    def test_the_data_is_found(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        ask(postgres.migrator_url(), "create table kept as select 42 as answer")
        postgres.stop()
        postgres.start()
        assert ask(postgres.migrator_url(), "select answer from kept") == 42

    def test_what_was_committed_survives_kill_9(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        ask(postgres.migrator_url(), "create table kept as select 42 as answer")
        postgres.kill()
        postgres.start()
        assert ask(postgres.migrator_url(), "select answer from kept") == 42

    def test_a_pid_file_whose_number_went_to_another_program_heals(
        self, postgres: EmbeddedPostgres
    ) -> None:
        postgres.start()
        pid_file = postgres.directory / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        postgres.kill()
        # With a process of the same user PostgreSQL itself would refuse to start.
        other = subprocess.Popen(
            postgres.privileges.command(["/bin/sleep", "60"], uid=postgres.privileges.service_uid)
        )
        try:
            pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
            postgres.start()
            assert ask(postgres.migrator_url(), "select 1") == 1
        finally:
            other.kill()
            other.wait()

    def test_a_directory_in_use_by_a_living_server_is_refused(
        self, postgres: EmbeddedPostgres
    ) -> None:
        postgres.start()
        second = EmbeddedPostgres(
            postgres.directory,
            PASSWORDS,
            run_directory=postgres.run_directory,
            log_file=postgres.log_file,
            durable=False,
        )
        second.leaving_seconds = 0.1
        with pytest.raises(DirectoryInUseError, match=rf"process {postgres.pid}\).*--data-dir"):
            second.start()
        assert ask(postgres.migrator_url(), "select 1") == 1

    def test_a_server_that_is_leaving_is_waited_for(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        second = EmbeddedPostgres(
            postgres.directory,
            PASSWORDS,
            run_directory=postgres.run_directory,
            log_file=postgres.log_file,
            durable=False,
        )
        leaving = threading.Timer(0.5, lambda: postgres.signal(signal.SIGINT))
        leaving.start()
        try:
            second.start()
            assert ask(second.migrator_url(), "select 1") == 1
        finally:
            leaving.join()
            second.stop()


class TestHalfInitialised:
    def test_an_interrupted_start_is_made_good_by_the_next(
        self, postgres: EmbeddedPostgres
    ) -> None:
        interrupting = threading.Timer(0.2, postgres.abort)
        interrupting.start()
        with pytest.raises(ServerStartError, match="could not be made"):
            postgres.start()
        interrupting.join()
        assert not postgres.exists
        again = postgres_at(postgres.directory.parent)
        again.start()
        try:
            assert ask(again.migrator_url(), "select 1") == 1
        finally:
            again.stop()

    def test_what_kill_9_left_of_making_is_thrown_away(self, postgres: EmbeddedPostgres) -> None:
        left = postgres.directory.with_name("postgres.new")
        (left / "base").mkdir(parents=True)
        (left / "PG_VERSION").write_text("18\n")
        postgres.start()
        assert ask(postgres.migrator_url(), "select 1") == 1
        assert not left.exists()

    @pytest.mark.parametrize("missing", ["PG_VERSION", "global/pg_control", "pg_hba.conf"])
    def test_a_database_with_missing_parts_is_refused_with_a_way_out(
        self, postgres: EmbeddedPostgres, missing: str
    ) -> None:
        for name in ("base/", "pg_wal/", "global/pg_control", "PG_VERSION", "pg_hba.conf"):
            path = postgres.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(parents=True)
            elif name != missing:
                path.write_text("18\n")
        with pytest.raises(HalfInitialisedError, match=rf"{missing} missing.*--reset"):
            postgres.start()

    def test_the_database_of_another_version_is_refused_with_a_way_out(
        self, postgres: EmbeddedPostgres
    ) -> None:
        postgres.start()
        postgres.stop()
        (postgres.directory / "PG_VERSION").write_text("17\n")
        with pytest.raises(DataDirectoryError, match=r"PostgreSQL 17 and this is 18.*--data-dir"):
            postgres.start()


class TestItsEnd:
    def test_it_ends_when_its_parent_is_killed(self, tmp_path: Path) -> None:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(tmp_path / "data")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        family = family_of(server)
        assert len(family) > 3
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert gone_within(family, seconds=10)

    def test_a_frozen_server_is_stopped_by_force(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        server = postgres.pid
        assert server is not None
        family = family_of(server)
        for pid in children_of(server):
            os.kill(pid, signal.SIGSTOP)
        postgres.stop(timeout_seconds=0.5)
        for pid in family - {server}:
            os.kill(pid, signal.SIGCONT)
        assert gone_within(family, seconds=10)


def test_the_directory_of_the_database_belongs_to_the_user_that_runs_it(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.start()
    status = postgres.directory.stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == Path(f"/proc/{postgres.pid}").stat().st_uid


PARENT = """
import sys, time
from pathlib import Path
from tests.integration.dev.test_postgres import postgres_at
postgres = postgres_at(Path(sys.argv[1])).start()
print(postgres.pid, flush=True)
time.sleep(60)
"""
