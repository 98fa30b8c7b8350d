"""Takes links, images and markup out of what a model writes: they could carry data to others.

Whoever reads an answer must not be made to fetch what a model, or a poisoned document, names. Links
come from citations alone, which the server builds.
"""

import html
import re
from collections.abc import Sequence
from typing import Final

REMOVED: Final = "[link removed]"
# From here on an unfinished address or tag is no longer held back but thrown away.
LONGEST: Final = 500

_DOMAINS: Final = (
    "com|net|org|io|dev|app|co|info|biz|xyz|site|online|me|ai|cloud|ru|cn|de|uk|fr|eu|us|to|ly|gg"
)
_END: Final = r"[^\s<>()\"'`\[\]{}|\\^]*"
_HOST: Final = r"[^\s<>()\"'`\]{}|^]*"
# Told by what no plain word has, since the words before it may have been shown already.
_ADDRESS: Final = (
    # Browsers take a backslash for a slash.
    rf"(?:(?:[a-z][a-z0-9+.-]{{0,20}})?:[/\\]{{2}}{_HOST}"
    # Once for each run of slashes, not from each of them.
    rf"|(?<![/\\])[/\\]{{2,}}(?=[\w.-]{{1,80}}\.[a-z]|(?:\d{{1,3}}\.){{2,3}}\d){_HOST}"
    rf"|(?<!\w)www\.{_END}"
    # Tried once for each run of such letters, not from each of them.
    rf"|(?<![a-z0-9.-])[a-z0-9.-]*\.(?:{_DOMAINS})(?::\d{{1,5}})?[/?#]{_END})"
)
_URL: Final = re.compile(rf"<?{_ADDRESS}>?", re.IGNORECASE)
_IN_CODE: Final = re.compile(_ADDRESS, re.IGNORECASE)
# `](target)`, whatever the label was: what is left is no link any more.
_TARGET: Final = re.compile(
    r"\]\(\s*(?:<[^>\n]*>|[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)"
    r"(?:\s+(?:\"[^\"\n]*\"|'[^'\n]*'))?\s*\)"
)
_DEFINITION: Final = re.compile(r"\]:(?:[ \t]*(?=\S*[/.])|\s*(?=[/\\]{2}))\S+")
# What a browser would read as part of an address or a tag, though it is written otherwise.
_ENTITY: Final = re.compile(
    r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|colon|b?sol|period|tab|newline);", re.IGNORECASE
)
_OPEN_ENTITY: Final = re.compile(r"&#?\w{0,10}$")
# A tag may go on in the next line; with a space behind the bracket it is none.
_UNCLOSED: Final = re.compile(r"<(?=/?[a-zA-Z!][^<>\n]*\n)")
_TAG: Final = re.compile(r"</?[a-zA-Z!][^<>\n]*>")
_IMAGE: Final = re.compile(r"!(?=\[)")
# What a text may end with that could still become one of these.
_OPEN_ADDRESS: Final = (
    re.compile(rf"<?{_ADDRESS}$", re.IGNORECASE),
    re.compile(r"(?<!\w)(?:h(?:t(?:t(?:ps?)?)?)?|w{1,3})$", re.IGNORECASE),
    re.compile(r"(?:(?<!\w)https?)?:[/\\]{0,2}$", re.IGNORECASE),
    re.compile(r"[/\\]+[\w.-]{0,80}$"),
    re.compile(r"\.[a-z]{0,6}(?::\d{0,5})?$", re.IGNORECASE),
)
_OPEN: Final = (
    *_OPEN_ADDRESS,
    # An image's mark waits with its label.
    re.compile(
        r"!?(?:\[[^\[\]\n]{0,60})?\]"
        r"(?:\(\s*[^\n)]*(?:\([^\n)]*\)[^\n)]*)*\s*|:[ \t]*\n?[ \t]*\S*)?$"
    ),
    re.compile(r"!\[[^\[\]\n]{0,60}$"),
    re.compile(r"</?(?:[a-zA-Z!][^<>\n]*)?$"),
    re.compile(r"!$"),
)


class Links:
    """Lets prose through without links; what may become one is held back until it is told."""

    def __init__(self) -> None:
        self._held = ""
        # Inside an address that grew too long to be held: thrown away until white space.
        self._is_dropping = False
        self.removed = 0

    def feed(self, text: str) -> str:
        """Take more prose; give what can be shown of it by now."""
        text = _ENTITY.sub(_plain, self._held + text)
        # What may become a character more is looked at with it.
        unfinished = _OPEN_ENTITY.search(text)
        cut = _cut(text if unfinished is None else text[: unfinished.start()])
        self._held = text[cut:]
        if len(self._held) > LONGEST:
            self.removed += 1
            self._held, self._is_dropping = "", True
            return self._clean(text[:cut]) + REMOVED
        return self._clean(text[:cut])

    def flush(self) -> str:
        """Give what was held back: the prose ends here, or code begins."""
        text, self._held = self._held, ""
        shown = self._clean(text)
        self._is_dropping = False
        return shown

    def _clean(self, text: str) -> str:
        if self._is_dropping:
            end = re.search(r"\s", text)
            if end is None:
                return ""
            text, self._is_dropping = text[end.start() :], False
        text = _UNCLOSED.sub("< ", text)
        text, targets = _TARGET.subn("]", text)
        text, definitions = _DEFINITION.subn("]", text)
        text, tags = _TAG.subn("", text)
        text, addresses = _URL.subn(REMOVED, text)
        text, images = _IMAGE.subn("", text)
        self.removed += targets + definitions + tags + addresses + images
        return text


class CodeAddresses:
    """Lets code through without addresses, but for those that were `given` to the model."""

    def __init__(self, given: str) -> None:
        self._given = given
        self._held = ""

    def feed(self, text: str) -> str:
        """Take more code; give what can be shown of it by now."""
        text = self._held + text
        cut = _cut(text, _OPEN_ADDRESS)
        if len(text) - cut > LONGEST:
            cut = len(text)
        self._held = text[cut:]
        return _IN_CODE.sub(self._stands, text[:cut])

    def flush(self) -> str:
        """Give what was held back: the code ends here."""
        text, self._held = self._held, ""
        return _IN_CODE.sub(self._stands, text)

    def _stands(self, found: re.Match[str]) -> str:
        return found[0] if found[0].rstrip(".,;:)") in self._given else REMOVED


def _plain(found: re.Match[str]) -> str:
    """Write a character as itself, but for those that mark up; what can't be shown is left out."""
    character = html.unescape(found[0])
    if character in "<>&[]()!":
        return found[0]
    return character if character.isprintable() or character in "\n\t" else ""


def _cut(text: str, patterns: Sequence[re.Pattern[str]] = _OPEN) -> int:
    """Give where what may still become a link begins; the length of the text if nothing may."""
    tail_at = max(0, len(text) - LONGEST - 100)
    tail = text[tail_at:]
    places = [found.start() for pattern in patterns if (found := pattern.search(tail)) is not None]
    return tail_at + min(places, default=len(tail))
