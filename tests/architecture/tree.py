"""The files and modules that the rules about the code are held against."""

import importlib
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
# Technical packages; every other package of the server is a feature.
TECHNICAL: Final = {
    *("assistant.answering", "assistant.dashboard", "assistant.embedding", "assistant.reading"),
    *("cli", "dev", "infra", "kernel", "realtime", "transport", "wiring"),
}


@cache
def committed_files() -> tuple[Path, ...]:
    """What is in version control, or will be with the next commit; relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    names = (Path(name) for name in listed.stdout.split("\0") if name)
    return tuple(sorted({name for name in names if (ROOT / name).is_file()}))


def python_files(*tops: str) -> list[Path]:
    return [file for file in committed_files() if file.suffix == ".py" and file.parts[0] in tops]


def modules(*tops: str) -> list[str]:
    """The dotted names of everything under these packages."""
    return sorted(
        ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        for file in python_files(*tops)
    )


def import_all(*tops: str) -> list[ModuleType]:
    """Import every module but the entry points."""
    return [
        importlib.import_module(name) for name in modules(*tops) if not name.endswith(".__main__")
    ]


def features() -> set[str]:
    """Every feature; of one that has grown into a folder of sub-nouns, each of these."""
    found: set[str] = set()
    for marker in (ROOT / "chatserver").glob("*/__init__.py"):
        name = marker.parent.name
        inner = {f"{name}.{each.parent.name}" for each in marker.parent.glob("*/__init__.py")}
        inner -= TECHNICAL
        has_files = any(each != marker for each in marker.parent.glob("*.py"))
        if name not in TECHNICAL:
            found |= {name} if has_files or not inner else inner
    return found
