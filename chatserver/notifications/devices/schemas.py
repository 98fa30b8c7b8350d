"""Devices for push, as they register themselves."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from chatserver.infra.web_push import bytes_of, check_point
from chatserver.kernel.wire import Answer, Id, Request, Timestamp, shows

Kind: TypeAlias = Literal["web_push", "fcm", "apns"]
Token: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[!-~]{8,2048}$")]
# An uncompressed point of P-256, and the secret that goes with it (RFC 8291).
_POINT = 65
_SECRET = 16


def _bytes_of(text: str, length: int) -> str:
    try:
        raw = bytes_of(text)
    except ValueError as error:
        raise ValueError("is not base64url") from error
    if len(raw) != length:
        raise ValueError(f"must be {length} bytes")
    return text


def _point(text: str) -> str:
    try:
        check_point(bytes_of(_bytes_of(text, _POINT)))
    except ValueError as error:
        raise ValueError("is no public key of P-256") from error
    return text


class PushKeys(Request):
    p256dh: Annotated[str, StringConstraints(max_length=128), AfterValidator(_point)]
    auth: Annotated[
        str, StringConstraints(max_length=64), AfterValidator(lambda it: _bytes_of(it, _SECRET))
    ]


class Subscription(Request):
    """What a browser's `PushManager.subscribe()` gives, as JSON."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,2000}$")]
    keys: PushKeys
    expiration_time: float | None = Field(default=None, alias="expirationTime")


class DevicePut(Request):
    """`web_push` brings a `subscription`, the others a `token`."""

    model_config = shows(kind="fcm", token="dGhpcyBpcyBhIHRva2Vu")  # noqa: S106 - an example

    kind: Kind
    token: Token | None = None
    subscription: Subscription | None = None

    @model_validator(mode="after")
    def _fits(self) -> "DevicePut":
        if (self.kind == "web_push") != (self.subscription is not None):
            raise ValueError("subscription is for web_push, which needs it")
        if (self.subscription is None) != (self.token is not None):
            raise ValueError("name either token or subscription")
        return self

    @property
    def address(self) -> str:
        """What names the device at its push service."""
        return self.token or (self.subscription.endpoint if self.subscription else "")


class Subscribed(Request):
    """A subscription that is given up: its `endpoint` is enough."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,2000}$")]
    keys: dict[str, str] | None = None
    expiration_time: float | None = Field(default=None, alias="expirationTime")


class DeviceDelete(Request):
    """`token` is the token, or the `endpoint` of a subscription, which may come whole instead."""

    model_config = shows(kind="fcm", token="dGhpcyBpcyBhIHRva2Vu")  # noqa: S106 - an example

    kind: Kind
    token: Token | None = None
    subscription: Subscribed | None = None

    @model_validator(mode="after")
    def _names_one(self) -> "DeviceDelete":
        if (self.subscription is None) == (self.token is None):
            raise ValueError("name either token or subscription")
        return self

    @property
    def address(self) -> str:
        """What tells the device from others."""
        if self.subscription is not None:
            return self.subscription.endpoint
        assert self.token is not None  # noqa: S101 - as the validator has seen
        return self.token


class DeviceList(Request):
    """The caller's own devices."""


class DeviceOut(Answer):
    """A device. Its token is never shown."""

    id: Id
    kind: str
    created_at: Timestamp
    last_seen_at: Timestamp


class Devices(Answer):
    items: list[DeviceOut]
