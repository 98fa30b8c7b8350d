"""Which of PostgreSQL's text search configurations suits a text, and how it is prepared for it."""

import re
from typing import Final

SAMPLE: Final = 20_000
# So many of a text's words must be a language's commonest, for us to believe it.
ENOUGH: Final = 0.08
MOSTLY: Final = 0.9

# The commonest words that say most about which language it is.
COMMON: Final = {
    "english": "the of and to in is that it for was with as be on are this by not have from or at",
    "german": "der die und das ist nicht ein eine mit den von zu im auf für sich des dem auch es",
    "french": "le la les des et est une dans que pour qui pas sur du au avec par sont ce il plus",
    "spanish": "el la los las que en un una por con para del se es no como más su al lo fue",
    "italian": "il di che è la per un una non sono della con del si i le da nel gli come più",
    "portuguese": "o os as que do da em um uma para com não é dos das por se mais ao na no foi",
    "dutch": "de het een en van is dat niet op te in zijn met voor er aan ook als bij maar wordt",
    "swedish": "och att det som en är på för av med den till inte om ett har de jag var från",
    "danish": "og at det er en til på af for med den der ikke som de et har fra om var blev",
    "norwegian": "og det er i en som på til av for med ikke at den har de et var fra ble om å",
    "finnish": "ja on ei se että oli hän mutta myös kun ovat jos niin kuin tai joka mukaan sekä",
    "hungarian": "a az és hogy nem is egy meg csak de volt ez már mint vagy ha el kell ki lesz",
    "romanian": "și de la în a cu nu o pe din un că este care mai pentru sunt al ce fi prin",
    "russian": "и в не на что с по как это из у за от для о так же но его к был она они",  # noqa: RUF001
    "turkish": "ve bir bu da de için ile olarak daha çok olan gibi kadar sonra ise en ne değil",
}
_WORDS: Final = {name: frozenset(words.split()) for name, words in COMMON.items()}
_WORD: Final = re.compile(r"[^\W\d_]+")
# Chinese, Japanese, Thai and their like, which put no spaces between words.
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def config_of(text: str) -> str:
    """Name the configuration for a text; `simple`, which stems nothing, for the unknown."""
    found = language_of(text)
    if found is not None:
        return found
    words = _WORD.findall(text[:SAMPLE])
    if not words:
        return "simple"
    # Names, prices, codes: most such lists are English, and its stems do little harm to others.
    return "english" if sum(map(str.isascii, words)) >= MOSTLY * len(words) else "simple"


def language_of(text: str) -> str | None:
    """Tell which language a text is in by its commonest words; None: none that we know."""
    words = [word.lower() for word in _WORD.findall(text[:SAMPLE])]
    counts = {name: sum(word in common for word in words) for name, common in _WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if words and counts[best] >= ENOUGH * len(words) else None


def searchable(text: str) -> str:
    """Write runs of characters without spaces as overlapping pairs, which words can be found by."""
    return _UNSPACED.sub(_pairs, text)


def _pairs(found: re.Match[str]) -> str:
    run = found[0]
    if len(run) == 1:
        return f" {run} "
    return " " + " ".join(run[at : at + 2] for at in range(len(run) - 1)) + " "
