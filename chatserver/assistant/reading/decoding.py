"""Makes text of bytes, in whatever encoding they are."""

import codecs
import re
from collections import Counter
from typing import Final

from charset_normalizer import from_bytes

from chatserver.assistant.reading.alphabets import encoding_of
from chatserver.assistant.reading.shapes import Refused

SAMPLE: Final = 64 * 1024
# Of a text so much may be control characters; more of them, and it is none.
MOST_CONTROLS: Final = 0.02
# Zeros are taken out later; a text with more of them is in another encoding, or none.
MOST_ZEROS: Final = 0.1
# Of the characters of a script most begin with the same byte in UTF-16; the second varies.
SAME: Final = 0.5

# Of a text between marks so much must be of an Eastern script.
MOSTLY: Final = 0.3
_EASTERN: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(data: bytes) -> str:
    """Decode a text; what can't be decoded inside of it becomes U+FFFD.

    Raises:
        Refused: it is no text in an encoding that we know.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _plausible(data.decode(name, errors="replace"))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and text.count("\0") <= len(text) * MOST_ZEROS and _is_plausible(text):
        return _escaped(data) or text
    wide = _wide(data)
    if wide is not None:
        return _plausible(data.decode(wide, errors="replace"))
    if text is not None or data[:SAMPLE].count(0) > SAMPLE * MOST_CONTROLS:
        raise Refused("unsupported")
    known = encoding_of(data)
    if known is not None:
        return _plausible(data.decode(known, errors="replace"))
    best = from_bytes(data[:SAMPLE]).best()
    if best is None:
        raise Refused("unsupported")
    return _plausible(data.decode(best.encoding, errors="replace"))


def _escaped(data: bytes) -> str | None:
    """Decode what writes Japanese, Korean or Chinese in seven bits, between marks."""
    sample = data[:SAMPLE]
    found: tuple[str, ...] = ()
    if b"\x1b$" in sample:
        found = ("iso2022_jp_2", "iso2022_jp_ext", "iso2022_kr")
    elif b"~{" in sample and b"~}" in sample:
        found = ("hz",)
    for name in found:
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        # A tilde and a brace may stand in any text: most of this one must be of that script.
        if len(_EASTERN.findall(text[:SAMPLE])) > MOSTLY * len(text[:SAMPLE]):
            return text
    return None


def _wide(data: bytes) -> str | None:
    """Tell which UTF-16 a text without a mark is in."""
    sample = data[: SAMPLE & ~1]
    # A space, a digit or a line's end has a zero; older encodings of many bytes have none.
    if len(sample) < 4 or 0 not in sample:  # noqa: PLR2004 - two characters
        return None
    pairs = len(sample) // 2
    even = Counter(sample[0::2]).most_common(1)[0][1] / pairs
    odd = Counter(sample[1::2]).most_common(1)[0][1] / pairs
    if odd > SAME and even < odd / 2:
        return "utf-16-le"
    if even > SAME and odd < even / 2:
        return "utf-16-be"
    return None


def _plausible(text: str) -> str:
    if not _is_plausible(text):
        raise Refused("unsupported")
    return text


def _is_plausible(text: str) -> bool:
    sample = text[:SAMPLE]
    strange = sum(1 for each in sample if each < " " and each not in "\t\n\r\f\v\0\x1b")
    strange += sample.count("\ufffd")
    return strange <= len(sample) * MOST_CONTROLS
