"""The devices of a person: registered by themselves, forgotten when they ask."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.secrets import SecretBox
from chatserver.kernel.errors import PayloadInvalidError, UnavailableError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty
from chatserver.notifications.devices.models import PushDevice
from chatserver.notifications.devices.repository import DeviceRepository
from chatserver.notifications.devices.schemas import (
    DeviceDelete,
    DeviceList,
    DeviceOut,
    DevicePut,
    Devices,
)

# More than anybody has; whoever registers more is a loop.
MOST = 50


class DeviceService:
    """`mac` names a token without telling it; `check_url` says whether the server goes there."""

    def __init__(
        self,
        *,
        devices: DeviceRepository,
        box: SecretBox,
        mac: Callable[[UUID, str], bytes],
        check_url: Callable[[str], Awaitable[None]],
    ) -> None:
        self._devices = devices
        self._box = box
        self._mac = mac
        self._check_url = check_url

    async def put(self, principal: Principal, command: DevicePut) -> DeviceOut:
        """Register the caller's device, or note that it is still there.

        A token that somebody else of the client had is the caller's from now on: devices are
        handed on, and nobody may get the messages of whoever had it before.

        Raises:
            PayloadInvalidError: the server does not go to this endpoint, or there are too many.
        """
        if command.subscription is not None:
            try:
                await self._check_url(command.subscription.endpoint)
            except AddressRefusedError as error:
                raise PayloadInvalidError.of("subscription.endpoint", str(error)) from error
        device = PushDevice(
            id=uuid7(),
            client_id=principal.client_id,
            user_id=principal.user_id,
            kind=command.kind,
            token_hash=self._mac(principal.client_id, command.address),
            sealed=b"",
        )
        known = await self._devices.list(principal.user_id)
        device.id = await self._devices.place_of(device)
        if device.id not in {each.id for each in known} and len(known) >= MOST:
            raise PayloadInvalidError.of("token", f"a user has at most {MOST} devices")
        content = command.model_dump_json(by_alias=True, exclude_none=True).encode()
        device.sealed = self._box.seal(content, bound_to=place(principal.client_id, device.id))
        kept = await self._devices.put(device)
        if kept is None:
            raise UnavailableError
        return shown(kept)

    async def list(self, principal: Principal, _: DeviceList) -> Devices:
        found = await self._devices.list(principal.user_id)
        return Devices(items=[shown(each) for each in found])

    async def delete(self, principal: Principal, command: DeviceDelete) -> Empty:
        """Forget a device; one that is not the caller's is as good as forgotten."""
        mac = self._mac(principal.client_id, command.address)
        await self._devices.remove(principal.user_id, command.kind, mac)
        return Empty()


def place(client_id: UUID, device_id: UUID) -> str:
    """Say what a sealed device is bound to."""
    return f"push_device:{client_id}:{device_id}"


def shown(device: PushDevice) -> DeviceOut:
    return DeviceOut(
        id=device.id,
        kind=device.kind,
        created_at=device.created_at,
        last_seen_at=device.last_seen_at,
    )
