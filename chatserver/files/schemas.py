"""Files as callers send and see them."""

import base64
import binascii
import unicodedata
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from chatserver.kernel.wire import Answer, ExternalId, Id, Request, Timestamp, left_out

State: TypeAlias = Literal["pending", "checking", "ready", "failed"]
SHA256_BYTES = 32


def _file_name(name: str) -> str:
    # Only ever shown, and written into one header; a name is never part of a path.
    clean = unicodedata.normalize("NFC", name).strip()
    if not clean or any(unicodedata.category(each) in {"Cc", "Cf", "Cs"} for each in clean):
        msg = "must have a character that can be seen, and none that controls"
        raise ValueError(msg)
    return clean


def _checksum(text: str) -> str:
    try:
        if len(base64.b64decode(text, validate=True)) == SHA256_BYTES:
            return text
    except (ValueError, binascii.Error):
        pass
    msg = "must be the SHA-256 of the content, in base64"
    raise ValueError(msg)


FileName: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(_file_name)
]
Checksum: TypeAlias = Annotated[
    str, AfterValidator(_checksum), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]


class CreateFile(Request):
    """What will be uploaded; the link takes exactly that."""

    name: FileName = Field(description="What it is called when it is downloaded.")
    content_type: Annotated[str, StringConstraints(max_length=128, to_lower=True)] = (
        "application/octet-stream"
    )
    size: Annotated[int, Field(ge=1, le=2**53 - 1)] = Field(description="In bytes.")
    sha256: Checksum = Field(description="SHA-256 of the content, in base64.")


class FileRef(Request):
    file_id: Id


class LinkOut(Answer):
    """A request that may be made until it expires: its method, its URL, its headers as they are.

    A URL that begins with `/` is relative to this server.
    """

    method: str
    url: str
    headers: dict[str, str]
    expires_at: Timestamp


class FileOut(Answer):
    """A file. `download` and `thumbnail` are there when it is `ready`, and for five minutes."""

    id: Id
    name: str
    content_type: str
    size: int
    sha256: str
    state: State
    reason: str | None = Field(
        description="Why it `failed`: size, checksum, type, image or missing."
    )
    width: int | None
    height: int | None
    uploader_id: ExternalId | None
    created_at: Timestamp
    download: LinkOut | None = left_out()
    thumbnail: LinkOut | None = left_out()


class FileCreated(Answer):
    """Where to send the content. Then call `/complete`."""

    file: FileOut
    upload: LinkOut
