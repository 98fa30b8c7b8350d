"""Takes secrets out of whatever is about to be logged.

Two nets: a value whose *name* says it is a secret is replaced whole; every remaining text is
searched for what *looks* like one. Both err on the side of hiding.
"""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

HIDDEN: Final = "***"

# Deeper than any log line is meant to be; also what ends a structure that contains itself.
_MAX_DEPTH: Final = 8

_SECRET_WORDS: Final = frozenset(
    {
        *("auth", "authorization", "bearer", "cookie", "cookies", "jwt", "token", "tokens"),
        *("passphrase", "passwd", "password", "passwords", "pw", "pwd", "pepper"),
        *("apikey", "credential", "credentials", "secret", "secrets"),
    }
)
# `key_id` and `token_count` say something about a secret without being one.
_HARMLESS_ENDINGS: Final = frozenset(
    {"id", "ids", "count", "at", "ms", "kind", "type", "name", "scopes"}
)
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# What a secret is called in running text, and how its value ends.
_NAMED: Final = (
    r"(?:password|passwd|passphrase|pepper|secrets?|secret[_-]?keys?|token"
    r"|(?:api|access|master|operator|private|scoped|signing)[_-]?key)"
)
_ASSIGNED: Final = r"['\"]?\s{0,8}[:=]\s{0,8}"
_QUOTED: Final = r"b?'(?:\\.|[^'\\])*'|b?\"(?:\\.|[^\"\\])*\""

# The repetitions are bounded so that a hostile text costs time in proportion to its length.
_REPLACEMENTS: Final = (
    # Headers, to the end of their line: a cookie has several parts.
    (rf"(?i)((?:authorization|cookie){_ASSIGNED})(?:{_QUOTED}|[^\r\n]+)", rf"\1{HIDDEN}"),
    (r"(?i)\b(Bearer|Basic)(?:\s|%20|\+)+[^\s'\",;]+", rf"\1 {HIDDEN}"),
    # A JWT, a key of the language model's provider.
    (r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*", f"eyJ{HIDDEN}"),
    (r"\bsk-[\w-]{8,}", f"sk-{HIDDEN}"),
    # The credentials of a URL: `//user:password@host`, `//token@host`.
    (r"(://[^\s/:@'\"]{0,256}):[^\s'\"]{0,1024}@", rf"\1:{HIDDEN}@"),
    (r"://[^\s/:@'\"]{1,256}@", f"://{HIDDEN}@"),
    # What PostgreSQL says in detail quotes rows: what people wrote.
    (
        (
            r"(?ms)^([ \t|]*DETAIL:).*?"
            r"(?=^[ \t|]*(?:HINT:|\[SQL|The above|During handling|Traceback)|\Z)"
        ),
        rf"\1 {HIDDEN}\n",
    ),
    # What pydantic says of a wrong value quotes it.
    (r"(?s)(\binput_value=).{0,2000}?(?=, input_type=)", rf"\1{HIDDEN}"),
    # `password=...` of a connection string, `'token': '...'` of a dictionary, `X-API-Key: ...`.
    (rf"(?i)({_NAMED}{_ASSIGNED})(?:{_QUOTED}|['\"]?[^\s,;&)}}\]'\"]+)", rf"\1{HIDDEN}"),
)
_PATTERNS: Final = tuple((re.compile(pattern), new) for pattern, new in _REPLACEMENTS)

# Nothing above matches without one of these; most texts of a log line have none.
_SUSPICIOUS: Final = re.compile(r"(?i)[=:@]|cs[mu]_|bearer|basic|eyJ|sk-")

_KEY: Final = re.compile(r"cs[mu]_[0-9A-Za-z_]+")
_KID_LENGTH: Final = 16


def redact_text(text: str) -> str:
    """Hide every part of `text` that looks like a secret."""
    if not _SUSPICIOUS.search(text):
        return text
    text = _KEY.sub(_without_secret, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _without_secret(found: re.Match[str]) -> str:
    # `kid` is public and what one looks for in a log; what is no whole key is hidden whole.
    kind, kid, *rest = found.group().split("_")
    return f"{kind}_{kid}_{HIDDEN}" if rest and len(kid) == _KID_LENGTH else f"{kind}_{HIDDEN}"


def redact(value: object, *, depth: int = 0) -> object:
    """Return a copy made of plain JSON types, at any depth without secrets.

    What is neither text, number, mapping nor list is turned into text here, because a renderer
    that did it later would do it past this net.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping | list | tuple | AbstractSet) and depth >= _MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return redact_mapping(value, depth=depth)
    if isinstance(value, list | tuple | AbstractSet):
        return [redact(item, depth=depth + 1) for item in value]
    return redact_text(_as_text(value))


def redact_mapping(mapping: Mapping[Any, object], *, depth: int = 0) -> dict[str, object]:
    """Like `redact`, and hides the values of members whose name says that they are secret."""
    return {
        redact_text(str(name)): HIDDEN
        if names_a_secret(str(name)) and _could_be_secret(str(name), value)
        else redact(value, depth=depth + 1)
        for name, value in mapping.items()
    }


def names_a_secret(name: str) -> bool:
    """Whether a member called `name`, in whatever notation, holds a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _HARMLESS_ENDINGS:
        return False
    return words[-1] in {"key", "keys"} or not _SECRET_WORDS.isdisjoint(words)


def _could_be_secret(name: str, value: object) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return not name.endswith("tokens")  # a language model's usage
    return value is not None and not isinstance(value, bool)


def _as_text(value: object) -> str:
    if isinstance(value, str | UUID | date | timedelta | PurePath):
        return str(value)
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a log line must not fail for what it is about
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
