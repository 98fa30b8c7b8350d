"""Whether a text breaks a rule. Pure decisions, in time linear in the text whatever a rule says.

Patterns run under RE2 (https://github.com/google/re2), which can't backtrack: a rule of one tenant
can't stop the process that all of them share.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

import re2

MASK: Final = "***"
RULES_PER_CLIENT: Final = 100
_MEMORY: Final = 8 << 20

# Characters that nobody sees, put into words to slip past a filter.
_HIDDEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
# A host name that is meant as a link: behind a scheme or `www.`, or before a path.
_HOST: Final = r"(?:[\pL\pN](?:[\pL\pN-]{0,62})\.)+[\pL][\pL\pN-]{1,62}"
_DOMAIN: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{1,62}")

Span: TypeAlias = tuple[int, int]
Find: TypeAlias = Callable[[str], Iterator[Span]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that is ready to be used."""

    id: UUID
    action: str
    room_ids: frozenset[UUID] | None
    find: Find


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules make of a text: the text to store, and the rules that flag it."""

    content: str
    masked_by: tuple[UUID, ...] = ()
    flagged_by: tuple[UUID, ...] = ()
    rejected_by: UUID | None = None


def compile_rule(kind: str, values: Sequence[str]) -> Find:
    """Make a rule ready.

    Raises:
        ValueError: a value is no pattern, no domain, or too much for RE2's memory.
    """
    if kind == "word":
        return _words(values)
    if kind == "pattern":
        return _patterns(values)
    return _links(values, allowed=kind == "link_unless")


def judge(content: str, room_id: UUID | None, rules: Sequence[Rule]) -> Verdict:
    """Hold a text against rules. The first that rejects decides; masks add up, flags as well."""
    masked: list[UUID] = []
    flagged: list[UUID] = []
    plain = _plain(content)
    for rule in rules:
        if rule.room_ids is not None and room_id not in rule.room_ids:
            continue
        if rule.action == "mask":
            hidden = _mask(content, rule.find)
            if hidden != content:
                masked.append(rule.id)
                content = hidden
            # Found only beneath disguise: there is no place to put the mask.
            if any(True for _ in rule.find(_plain(content))):
                return Verdict(content, rejected_by=rule.id)
        elif any(True for _ in rule.find(plain)) or any(True for _ in rule.find(content)):
            if rule.action == "reject":
                return Verdict(content, rejected_by=rule.id)
            flagged.append(rule.id)
    return Verdict(content, masked_by=tuple(masked), flagged_by=tuple(flagged))


def _mask(content: str, find: Find) -> str:
    parts: list[str] = []
    end = 0
    for start, stop in find(content):
        parts += (content[end:start], MASK)
        end = stop
    return "".join((*parts, content[end:]))


def _plain(content: str) -> str:
    """Take disguises off: compatibility forms, hidden characters."""
    if content.isascii():
        return content
    return unicodedata.normalize("NFKC", _HIDDEN.sub("", content))


def _compiled(pattern: str) -> Any:  # noqa: ANN401 - the library publishes no types
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError("is no pattern of RE2, or too large") from error


def _words(values: Sequence[str]) -> Find:
    terms = {_plain(value).strip() for value in values}
    if "" in terms:
        raise ValueError("a word must have a visible character")
    # Longest first, so that a phrase is found before a word that it begins with.
    ordered = sorted(terms, key=len, reverse=True)
    pattern = _compiled("|".join(re2.escape(term) for term in ordered))

    def find(content: str) -> Iterator[Span]:
        for found in pattern.finditer(content):
            start, end = found.span()
            if not (_joins(content, start - 1, start) or _joins(content, end - 1, end)):
                yield start, end

    return find


def _joins(content: str, left: int, right: int) -> bool:
    """Tell whether two neighbouring characters belong to one word."""
    if left < 0 or right >= len(content):
        return False
    return _in_word(content[left]) and _in_word(content[right])


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _patterns(values: Sequence[str]) -> Find:
    compiled = [_compiled(value) for value in values]
    if any(each.search("") for each in compiled):
        raise ValueError("a pattern must not match an empty text")

    def find(content: str) -> Iterator[Span]:
        spans = sorted(
            found.span() for each in compiled for found in each.finditer(content) if found.group()
        )
        end = 0
        for start, stop in spans:
            if start >= end:
                yield start, stop
                end = stop

    return find


def _links(values: Sequence[str], *, allowed: bool) -> Find:
    named = {_domain(value) for value in values if value != "*"}
    every = "*" in values
    if allowed and every:
        raise ValueError("`*` allows every link: then there is no rule")
    link = _compiled(rf"(?:[a-z][a-z0-9+.-]{{1,20}}://|www\.)[^\s/?#]*|{_HOST}(?::\d{{1,5}})?/")
    bare = _compiled(_HOST)

    def below(host: str) -> bool:
        labels = host.split(".")
        return any(".".join(labels[at:]) in named for at in range(len(labels)))

    def find(content: str) -> Iterator[Span]:
        pattern = link if every or allowed else bare
        for found in pattern.finditer(content):
            # What stands before an `@` is a name to log in with, whatever it looks like.
            authority = found.group().rpartition("://")[2].rpartition("@")[2]
            inside = bare.search(authority)
            host = _punycode(inside.group()) if inside else ""
            if every or (below(host) is not allowed):
                yield found.span()

    return find


def _domain(value: str) -> str:
    domain = _punycode(value.strip().removeprefix("*.").rstrip("."))
    if _DOMAIN.fullmatch(domain) is None:
        raise ValueError("a link rule takes domains, as example.org, or `*`")
    return domain


def _punycode(host: str) -> str:
    try:
        return host.lower().encode("idna").decode()
    except UnicodeError:
        return host.lower()
