"""REST: the caller's own devices for push."""

from typing import Final

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import Empty
from chatserver.notifications.devices.schemas import (
    DeviceDelete,
    DeviceList,
    DeviceOut,
    DevicePut,
    Devices,
)
from chatserver.notifications.devices.service import DeviceService
from chatserver.transport.registry import USER, Route, operation


class DevicesHttp:
    def __init__(self, devices: Open[DeviceService]) -> None:
        self._devices = devices

    @operation(
        "device.put",
        DevicePut,
        DeviceOut,
        callers=USER,
        scope=Scope.NOTIFICATIONS_READ,
        errors=(PayloadInvalidError,),
    )
    async def put(self, principal: Principal, command: DevicePut) -> DeviceOut:
        """Register a device for push, or say that it is still there."""
        async with self._devices() as devices:
            return await devices.put(principal, command)

    @operation("device.list", DeviceList, Devices, callers=USER, scope=Scope.NOTIFICATIONS_READ)
    async def list(self, principal: Principal, command: DeviceList) -> Devices:
        """List the own devices for push."""
        async with self._devices() as devices:
            return await devices.list(principal, command)

    @operation("device.delete", DeviceDelete, Empty, callers=USER, scope=Scope.NOTIFICATIONS_READ)
    async def delete(self, principal: Principal, command: DeviceDelete) -> Empty:
        """Forget a device.

        `token` is its token, or the `endpoint` of its subscription. The members stand in the
        query, or in a JSON body.
        """
        async with self._devices() as devices:
            return await devices.delete(principal, command)


ROUTES: Final = (
    Route(method="GET", path="/me/devices", operation="device.list"),
    Route(method="PUT", path="/me/devices", operation="device.put"),
    Route(method="DELETE", path="/me/devices", operation="device.delete"),
)
