"""The commands about a connection's own credential, in every namespace."""

from typing import Annotated, Final, Protocol

from pydantic import Field

from chatserver.api_keys.errors import LOGIN, AuthInvalidError
from chatserver.api_keys.identity import Identifier
from chatserver.api_keys.rotation import Rotation
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Answer, Id, Request
from chatserver.realtime.ports import Handshake
from chatserver.transport.credentials import check_origin
from chatserver.transport.registry import USER, command
from chatserver.transport.sessions import SessionAuth
from chatserver.transport.sockets import REFRESH, auth_of

_LONGEST: Final = 8_192


class Refresh(Request):
    token: Annotated[str, Field(min_length=1, max_length=_LONGEST, repr=False)]
    client: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The slug of whose issuer a JWT is, as in the connect's `auth`."
    )


class Refreshed(Answer):
    """What the connection goes on with."""

    auth: SessionAuth


class Confirm(Request):
    key_id: Id


class Confirmed(Answer):
    """The key is in use; the one before it works for another 120 s."""

    key_id: Id


class Current(Protocol):
    """The connection whose command is running."""

    def handshake(self) -> Handshake: ...

    async def renew(self, token: str, client: str | None, principal: Principal) -> None: ...


class AuthCommands:
    def __init__(self, identifier: Identifier, rotation: Rotation, current: Current) -> None:
        self._identifier = identifier
        self._rotation = rotation
        self._current = current

    @command(REFRESH, Refresh, Refreshed, callers=USER)
    async def refresh(self, principal: Principal, request: Refresh) -> Refreshed:
        """Go on with another credential of the same user, without connecting again.

        Its scopes and its end hold at once, in all namespaces of the connection. It is not rotated
        by this, nor does a pending key come into use. What was held back since the old credential
        expired follows.
        """
        renewed = await self._identifier.identify(
            request.token,
            door="socket",
            client_slug=request.client,
            device_id=principal.device_id or None,
        )
        if (renewed.client_id, renewed.user_id) != (principal.client_id, principal.user_id):
            raise AuthInvalidError("This credential belongs to somebody else.", action=LOGIN)
        check_origin(renewed, self._current.handshake().origin)
        await self._current.renew(request.token, request.client, renewed)
        return Refreshed(auth=SessionAuth.model_validate(auth_of(renewed)))

    @command("auth.confirm", Confirm, Confirmed, callers=USER)
    async def confirm(self, principal: Principal, request: Confirm) -> Confirmed:
        """Confirm that the key of `auth.rotated` is kept, instead of connecting with it.

        The key comes into use and the one presented runs out after the grace. Confirming twice
        changes nothing.
        """
        if not principal.kid or not await self._rotation.confirm(principal.kid, request.key_id):
            raise PayloadInvalidError.of("key_id", "is not the pending key of this device")
        return Confirmed(key_id=request.key_id)
