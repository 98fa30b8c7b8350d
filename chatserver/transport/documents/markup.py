"""HTML, put together from parts that are escaped unless they are HTML already."""

import html
import re
from typing import Final

_CODE: Final = re.compile(r"`([^`]+)`")
_STRONG: Final = re.compile(r"\*\*([^*]+)\*\*")


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """Make an element. A trailing underscore in an attribute's name is for Python's sake."""
    said = "".join(
        f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{said}>{join(*children)}</{name}>")


def join(*parts: str) -> Html:
    """Put parts one after the other; what is no HTML is text."""
    return Html("".join(each if isinstance(each, Html) else html.escape(each) for each in parts))


def inline(text: str) -> Html:
    """Translate the little Markdown that docstrings have: code and emphasis."""
    escaped = _CODE.sub(r"<code>\1</code>", html.escape(text, quote=False))
    return Html(_STRONG.sub(r"<strong>\1</strong>", escaped))


def paragraphs(text: str) -> Html:
    """Translate paragraphs, and lists whose items begin with `* ` or `- `."""
    return join(*(_block(block) for block in re.split(r"\n\s*\n", text.strip()) if block.strip()))


def _block(block: str) -> Html:
    lines = block.split("\n")
    if not re.match(r"\s*[*-] ", lines[0]):
        return tag("p", inline(" ".join(line.strip() for line in lines)))
    items: list[str] = []
    for line in lines:
        if re.match(r"\s*[*-] ", line):
            items.append(re.sub(r"^\s*[*-] ", "", line))
        else:
            items[-1] += " " + line.strip()
    return tag("ul", *(tag("li", inline(item)) for item in items))
