"""Documents from the command line: read here, listed, asked for, read again, embedded anew."""

import csv
import json
from pathlib import Path

from tests.support import documents
from tests.support.cli import Cli, Ran
from tests.support.servers import Database

TERMS = "The warranty of the kettle lasts for seven years. Returns are taken for thirty days."
MANUAL = "Press the green button to begin. Descale the kettle once a month with vinegar."


def test_a_directory_is_uploaded_asked_and_read_again(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    def ran(*arguments: str) -> Ran:
        return cli(*arguments, environment=database.settings())

    def told(*arguments: str) -> dict[str, object]:
        """Give what was printed: one line of JSON, and nothing beside it."""
        done = ran("documents", *arguments, "--client", "acme", "--json")
        assert (done.code, done.err) == (0, "")
        found: dict[str, object] = done.json()
        return found

    assert ran("client", "create", "acme", "--json").code == 0
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "terms.pdf").write_bytes(documents.pdf(TERMS))
    (folder / "deep" / "manual.txt").write_text(MANUAL)
    (folder / "broken.docx").write_bytes(b"PK\x03\x04 and nothing else")
    (folder / ".hidden").write_text("not this")
    assert ran("documents", "upload", str(folder), "--client", "acme", "--bot", "x").code != 0

    questions = folder / "questions.csv"
    with questions.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, ["question", "references", "corpus_id"])
        writer.writeheader()
        place = [{"start_index": MANUAL.index("Descale"), "end_index": len(MANUAL)}]
        writer.writerow(
            {
                "question": "How often must the kettle be descaled?",
                "references": json.dumps(place),
                "corpus_id": "manual",
            }
        )
    (folder / "manual.txt").write_text(MANUAL)
    figures = told("eval", str(questions), "--keep", "--least", "90")
    assert (figures["questions"], figures["recall_at_5"]) == (1, 100.0)
    assert ran("documents", "eval", str(folder / "terms.pdf"), "--client", "acme").code == 2

    bot = str(told("list")["items"][0]["bot_id"])  # type: ignore[index]  # JSON
    done = told("upload", str(folder), "--bot", bot, "--here")
    # The same content under another name is not read twice.
    assert (done["documents"], done["ready"]) == (4, 3)
    assert done["failed"] == [{"name": "broken.docx", "reason": "unsupported"}]
    items = told("list", "--bot", bot)["items"]
    states = {each["name"]: (each["status"], each["reason"]) for each in items}  # type: ignore[attr-defined]
    assert states["terms.pdf"] == ("ready", None)
    assert states["manual.txt"] == ("ready", None)
    assert states["broken.docx"] == ("failed", "unsupported")
    again = told("process", "--bot", bot, "--failed", "--here")
    assert again["failed"] == done["failed"]
    anew = told("reembed", "--bot", bot)
    assert anew["bots"] == 0  # all is of this model already
