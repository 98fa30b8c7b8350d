"""`make migration m="..."`: what models have and migrations have not, as a new migration."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from chatserver.infra.database import engine_url
from tests.support.servers import Servers

MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"


def write(message: str, migrator_url: str) -> Path:
    """Compare the models with this database, which must be at head, and write the difference."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = engine_url(migrator_url)
    head = ScriptDirectory.from_config(config).get_current_head() or "0000"
    script = command.revision(config, message, autogenerate=True, rev_id=f"{int(head) + 1:04}")
    if script is None or isinstance(script, list):
        raise RuntimeError("Alembic wrote no migration, or several.")
    return Path(script.path)


def main() -> None:
    message = " ".join(sys.argv[1:]).strip()
    if not message:
        sys.exit('Say what it does: make migration m="add rooms.topic"')
    with Servers() as servers:
        written = write(message, servers.fresh_database().migrator_url)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(written)], check=True)
    print(f"Read and complete {written.relative_to(MIGRATIONS.parent)}, above all its downgrade.")


if __name__ == "__main__":
    main()
