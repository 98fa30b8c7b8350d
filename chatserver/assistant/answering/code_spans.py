"""Tells code from prose in Markdown that is still being written."""

from typing import Final

TICKS: Final = "`~"
FENCE: Final = 3


class CodeSpans:
    """Splits a stream into prose and code; what can't be told yet is held back.

    An inline span ends with its line at the latest, so that one stray backtick does not turn the
    rest of an answer into code.
    """

    def __init__(self) -> None:
        self._held = ""
        # The run of ticks that opened the code we are in; empty in prose.
        self._opened = ""
        self._at_line_start = True

    @property
    def is_open(self) -> bool:
        """Whether the text ends inside a fenced block."""
        return len(self._opened) >= FENCE

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Take more text; give `(is_code, text)` in order."""
        text, self._held = self._held + text, ""
        found: list[tuple[bool, str]] = []
        at = 0
        while at < len(text):
            char = text[at]
            if char not in TICKS:
                at = self._plain(text, at, found)
                continue
            end = at
            while end < len(text) and text[end] == char:
                end += 1
            if end == len(text):
                self._held = text[at:]  # more of them may follow
                break
            self._run(text[at:end], found)
            at = end
        return found

    def flush(self) -> list[tuple[bool, str]]:
        """Give what was held back: nothing follows."""
        held, self._held = self._held, ""
        found: list[tuple[bool, str]] = []
        if held:
            self._run(held, found)
        return found

    def _plain(self, text: str, at: int, found: list[tuple[bool, str]]) -> int:
        end = at
        while end < len(text) and text[end] not in TICKS:
            end += 1
        is_inline = bool(self._opened) and len(self._opened) < FENCE
        newline = text.find("\n", at, end)
        if is_inline and newline >= 0:
            _add(found, is_code=True, text=text[at:newline])
            self._opened = ""
            at = newline
        part = text[at:end]
        _add(found, is_code=bool(self._opened), text=part)
        line = part.rpartition("\n")[2]
        if "\n" in part:
            self._at_line_start = not line.strip()
        elif line.strip():
            self._at_line_start = False
        return end

    def _run(self, run: str, found: list[tuple[bool, str]]) -> None:
        if not self._opened:
            opens = run[0] == "`" or (len(run) >= FENCE and self._at_line_start)
            if len(run) >= FENCE and not self._at_line_start:
                opens = False  # a fence stands at the beginning of its line
            if opens:
                self._opened = run
            _add(found, is_code=opens, text=run)
        else:
            _add(found, is_code=True, text=run)
            if self._closes(run):
                self._opened = ""
        self._at_line_start = False

    def _closes(self, run: str) -> bool:
        if run[0] != self._opened[0]:
            return False
        if len(self._opened) >= FENCE:
            return len(run) >= len(self._opened) and self._at_line_start
        return len(run) == len(self._opened)


def _add(found: list[tuple[bool, str]], *, is_code: bool, text: str) -> None:
    if not text:
        return
    if found and found[-1][0] is is_code:
        found[-1] = (is_code, found[-1][1] + text)
    else:
        found.append((is_code, text))
