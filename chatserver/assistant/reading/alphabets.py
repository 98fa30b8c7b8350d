"""Tells old encodings of one byte apart by the language that a text turns out to be in.

Decoders take any bytes: of several that do, one gives words of a language in which the letters
beyond ASCII are that language's own and stand where letters stand. Statistics of characters alone
mistake neighbours, such as the two Cyrillic encodings that differ in capitals and one small letter.
"""

# ruff: noqa: RUF001 - letters of many scripts

import re
from typing import Final

from chatserver.assistant.reading.language import COMMON

SAMPLE: Final = 16 * 1024
# So many of a text's words must be a language's commonest.
ENOUGH: Final = 0.08
# Of the characters beyond ASCII so many may be no letters of the language, or oddly placed.
MOST_ODD: Final = 0.1
# Quotes and dashes are in every text, but what is one in this encoding may be a letter in another.
MARK: Final = 0.25

_WESTERN: Final = ("cp1252", "cp850", "mac_roman")
_CENTRAL: Final = ("cp1250", "iso8859-2", "cp852", "mac_latin2")
_BALTIC: Final = ("cp1257", "iso8859-13", "cp775")
_CYRILLIC: Final = ("cp1251", "koi8-u", "iso8859-5", "cp866", "mac_cyrillic", "cp855", "cp1125")
_AZBUKA: Final = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
# Language: its letters beyond ASCII, its commonest words, its encodings, the likeliest first.
LANGUAGES: Final = {
    # English borrows from all of its neighbours.
    "english": ("àâäáãåæçéèêëíîïñóôöõøœùúûüýÿßšž", COMMON["english"], _WESTERN),
    "german": ("äöüßéè", COMMON["german"], _WESTERN),
    "french": ("àâæçéèêëîïôœùûüÿ", COMMON["french"], _WESTERN),
    "spanish": ("áéíóúüñºª", COMMON["spanish"], _WESTERN),
    "italian": ("àèéìíòóùú", COMMON["italian"], _WESTERN),
    "portuguese": ("ãáâàçéêíóôõúüºª", COMMON["portuguese"], _WESTERN),
    "dutch": ("ëïéèöüäóá", COMMON["dutch"], _WESTERN),
    "swedish": ("åäöéü", COMMON["swedish"], _WESTERN),
    "danish": ("æøåéöü", COMMON["danish"], _WESTERN),
    "norwegian": ("æøåéèòôóü", COMMON["norwegian"], _WESTERN),
    "finnish": ("äöåšž", COMMON["finnish"], _WESTERN),
    "polish": ("ąćęłńóśźż", "i w nie na się z do to że jest o od po przez za jak ale co", _CENTRAL),
    "czech": ("áčďéěíňóřšťúůýž", "a se v na je že o s z do i to k ve pro za by ale od", _CENTRAL),
    "slovak": ("áäčďéíĺľňóôŕšťúýž", "a sa v na je že o s z do i to k vo pre za by od", _CENTRAL),
    "croatian": ("čćđšž", "i u je na se da za su od s a o ne koji kao iz će do in", _CENTRAL),
    "hungarian": ("áéíóöőúüű", COMMON["hungarian"], _CENTRAL),
    "romanian": (
        "ăâîşţșț",
        f"{COMMON['romanian']} şi",
        (*_CENTRAL, "iso8859-16"),
    ),
    "turkish": (
        "çğıöşüâîû",
        COMMON["turkish"],
        ("cp1254", "cp857", "mac_turkish"),
    ),
    "latvian": ("āčēģīķļņšūž", "un ir ar par no to kas ka uz ko tas vai ne var kā", _BALTIC),
    "lithuanian": ("ąčęėįšųūž", "ir yra kad su į iš kaip tai bet jo už o ar nuo per", _BALTIC),
    "russian": (_AZBUKA + "ё", COMMON["russian"], _CYRILLIC),
    "ukrainian": (_AZBUKA + "ґєії", "і в не на що з та до у за від для як це про й є", _CYRILLIC),
    "bulgarian": (_AZBUKA, "и в на да за се от не са е с че по как със към или бъде", _CYRILLIC),
    "serbian": ("абвгдђежзијклљмнњопрстћуфхцчџш", "и у је на се да за су од са не који", _CYRILLIC),
    "greek": (
        "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",
        "και το η να του της για με ο την από είναι που τα σε θα στο τους δεν τη",
        ("cp1253", "iso8859-7", "cp737", "mac_greek", "cp869"),
    ),
}  # fmt: skip
_WORD: Final = re.compile(r"[^\W\d_]+")
_SPECIAL: Final = re.compile(r"[^\x00-\x7f]")
_MARKS: Final = frozenset("\u00a0«»„“”‘’‚‹›–—…•§°№€£©®™±²³·¶´¿¡×½")


def encoding_of(data: bytes) -> str | None:
    """Name the encoding in which a text is one of a language's; None: of none that we know."""
    sample = data[:SAMPLE]
    special = sum(byte >= 0x80 for byte in sample)  # noqa: PLR2004 - beyond ASCII
    best: tuple[float, str] | None = None
    texts: dict[str, str] = {}
    for letters, words, encodings in LANGUAGES.values():
        common = frozenset(words.split())
        for name in encodings:
            text = texts.get(name)
            if text is None:
                text = texts[name] = sample.decode(name, errors="replace")
            if not _speaks(text, common):
                continue
            odd, marks = _odd(text, frozenset(letters))
            if odd <= MOST_ODD * special and (best is None or odd + MARK * marks < best[0]):
                best = (odd + MARK * marks, name)
    return None if best is None else best[1]


def _speaks(text: str, common: frozenset[str]) -> bool:
    words = _WORD.findall(text)
    return sum(word.lower() in common for word in words) >= ENOUGH * max(len(words), 1)


def _odd(text: str, letters: frozenset[str]) -> tuple[int, int]:
    """Count what is no letter of the language, or a capital after a small one; and the marks."""
    odd = marks = 0
    for found in _SPECIAL.finditer(text):
        at, character = found.start(), found.group()
        if character in _MARKS:
            marks += 1
        elif character.lower() not in letters:
            odd += character != "İ"
        elif character.isupper() and at and text[at - 1].islower():
            odd += 1
    return odd, marks
