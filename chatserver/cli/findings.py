"""What `chatserver check` finds: one line for each part."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """How one part is. `mend` is a sentence for whoever reads it, empty when all is well."""

    part: str
    ok: bool
    detail: str
    mend: str = ""


def judged(part: str, detail: str, *, ok: bool, mend: str) -> Finding:
    """Give a finding whose `mend` is only told when it is needed."""
    return Finding(part, ok=ok, detail=detail, mend="" if ok else mend)
