"""People, as they go over the wire."""

import re
import unicodedata
from typing import Annotated, Any, Final, TypeAlias

import orjson
from pydantic import AfterValidator, Field, PrivateAttr, StringConstraints

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, ExternalId, Request, Timestamp

MAX_DETAILS_BYTES: Final = 16 * 1024

# Joiners build emoji and are part of Persian and Indic spelling; whatever else formats or controls
# text invisibly can only make one name look like another.
_JOINERS: Final = "\u200c\u200d"
_URL: Final = re.compile(r"https?://[^\s/?#]+(?:[/?#]\S*)?", re.IGNORECASE)


def _shown_name(name: str) -> str:
    kept = (c for c in name if c in _JOINERS or unicodedata.category(c) not in {"Cf", "Cc"})
    clean = unicodedata.normalize("NFC", "".join(kept)).strip()
    if not clean.strip(_JOINERS):
        msg = "has no visible character"
        raise ValueError(msg)
    return clean


def _web_address(url: str) -> str:
    if _URL.fullmatch(url) is None:
        msg = "must be an http or https URL"
        raise ValueError(msg)
    return url


def _bounded(details: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(details)) > MAX_DETAILS_BYTES:
        msg = f"must be at most {MAX_DETAILS_BYTES} bytes of JSON"
        raise ValueError(msg)
    return details


DisplayName: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=256), AfterValidator(_shown_name)
]
WebAddress: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_web_address)
]
Details: TypeAlias = Annotated[dict[str, Any], AfterValidator(_bounded)]


class Profile(Request):
    display_name: DisplayName | None = None
    avatar_url: WebAddress | None = None
    metadata: Details | None = Field(default=None, description="At most 16 KiB of JSON.")


class UserPut(Profile):
    external_id: ExternalId


class UserPatch(Profile):
    external_id: ExternalId

    def changes(self) -> dict[str, Any]:
        """Give what was sent, by column; null clears."""
        sent = self.model_dump(exclude_unset=True, exclude={"external_id"})
        if "metadata" in sent:
            sent["details"] = sent.pop("metadata") or {}
        return sent


class UserPath(Request):
    external_id: ExternalId


class UserList(PageRequest):
    pass


class UserOut(Answer):
    user_id: str
    external_id: str
    display_name: str | None
    avatar_url: str | None
    metadata: dict[str, Any]
    created_at: Timestamp
    updated_at: Timestamp


class UserKept(UserOut):
    """A user, new or known before."""

    _is_new: bool = PrivateAttr(default=False)

    @property
    def is_repeat(self) -> bool:
        return not self._is_new

    @classmethod
    def of(cls, user: UserOut, *, is_new: bool) -> "UserKept":
        kept = cls(**dict(user))
        kept._is_new = is_new
        return kept
