"""How a device is named when it is given up."""

import pytest

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.notifications.devices.schemas import DeviceDelete
from chatserver.transport.registry import parse

ENDPOINT = "https://push.example.com/send/1"


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ({"token": "a-token-of-some-kind"}, "a-token-of-some-kind"),
        ({"subscription": {"endpoint": ENDPOINT}}, ENDPOINT),
        (
            {
                "subscription": {
                    "endpoint": ENDPOINT,
                    "expirationTime": None,
                    "keys": {"p256dh": "x", "auth": "y"},
                }
            },
            ENDPOINT,
        ),
    ],
)
def test_by_its_token_or_its_subscription(named: dict[str, object], address: str) -> None:
    request = parse(DeviceDelete, {"kind": "web_push", **named})
    assert isinstance(request, DeviceDelete)
    assert request.address == address


@pytest.mark.parametrize(
    "named", [{}, {"token": "a-token-of-some-kind", "subscription": {"endpoint": ENDPOINT}}]
)
def test_and_by_just_one_of_them(named: dict[str, object]) -> None:
    with pytest.raises(PayloadInvalidError):
        parse(DeviceDelete, {"kind": "web_push", **named})
