"""Joining what a model writes now to what was shown before: every character once."""

from difflib import SequenceMatcher
from typing import Final

# How much is looked at before the first character is let through.
LOOK: Final = 300
# A model whose first characters are so much like the first ones of before has begun again.
LIKENESS: Final = 0.8
LIKE: Final = 200
# Fewer characters may be alike by chance.
LEAST: Final = 24


class RestartedError(Exception):
    """The model began its answer again. `text` is what it wrote so far."""

    def __init__(self, text: str) -> None:
        super().__init__("the model began again")
        self.text = text


class NotJoinedError(Exception):
    """What was cut off in the middle of a word is not what the model goes on with."""


class Joint:
    """Takes the first text after a break, and gives it without what was shown already.

    `shown` is what everybody sees, `seen` the shorter one that the model was given.
    """

    def __init__(self, shown: str, seen: str) -> None:
        self._shown = shown
        self._cut = shown[len(seen) :] if shown.startswith(seen) else ""
        self._new = ""
        self._is_joined = not shown

    def feed(self, text: str) -> str:
        """Take more; give what is new.

        Raises:
            RestartedError, NotJoinedError
        """
        if self._is_joined:
            return text
        self._new += text
        return self._decide() if len(self._new) >= LOOK else ""

    def flush(self) -> str:
        """Decide by what there is: no more follows. Raises as `feed`."""
        return "" if self._is_joined else self._decide()

    def _decide(self) -> str:
        self._is_joined = True
        overlap = overlap_of(self._shown, self._new)
        if overlap < LEAST and has_restarted(self._shown, self._new):
            raise RestartedError(self._new)
        if overlap == 0 and self._cut.strip():
            # What it was not shown must come first, however little it is.
            overlap = beginning_of(self._cut, self._new)
            if overlap == 0:
                raise NotJoinedError
        rest, self._new = self._new[overlap:], ""
        return rest


def has_restarted(shown: str, new: str) -> bool:
    """Tell whether a text begins like another one began."""
    length = min(LIKE, len(shown), len(new))
    if length < LEAST:
        return False
    first, second = _folded(shown[:length])[0], _folded(new[:length])[0]
    return SequenceMatcher(None, first, second, autojunk=False).ratio() > LIKENESS


def overlap_of(shown: str, new: str) -> int:
    """Give how many characters at the beginning of `new` are the end of `shown`.

    Case and the amount of white space don't count.
    """
    tail, _ = _folded(shown[-2 * LOOK :])
    head, places = _folded(new[: 2 * LOOK])
    for length in range(min(LOOK, len(tail), len(head)), 0, -1):
        if tail[-length:] == head[:length] and _is_telling(head[:length], tail):
            return places[length - 1] + 1
    return 0


def beginning_of(cut: str, new: str) -> int:
    """Give how many characters of `new` are what was cut off, if it begins with that."""
    wanted = _folded(cut)[0].strip()
    head, places = _folded(new)
    at = len(head) - len(head.lstrip())
    return places[at + len(wanted) - 1] + 1 if head[at:].startswith(wanted) else 0


def _is_telling(common: str, tail: str) -> bool:
    # One letter or space is the same by chance, unless it is all that stands there.
    return len(common.strip()) >= 3 or not common.strip() or common == tail  # noqa: PLR2004


def _folded(text: str) -> tuple[str, list[int]]:
    """Fold case and white space; give for each character left where it stood."""
    folded: list[str] = []
    places: list[int] = []
    for at, char in enumerate(text):
        if char.isspace():
            if folded and folded[-1] == " ":
                places[-1] = at
                continue
            folded.append(" ")
            places.append(at)
        else:
            for part in char.casefold():
                folded.append(part)
                places.append(at)
    return "".join(folded), places
