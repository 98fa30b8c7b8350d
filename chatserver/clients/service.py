"""What can be done with tenants and their master keys."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from chatserver.clients.errors import (
    ClientNotFoundError,
    KeyNotFoundError,
    LastKeyError,
    SlugTakenError,
)
from chatserver.clients.issuers import Issuers
from chatserver.clients.models import Client, ClientKey
from chatserver.clients.policies import slug_candidates
from chatserver.clients.repository import ClientKeyRepository, ClientRepository
from chatserver.clients.schemas import (
    REVOKE_FAMILY,
    ClientCreate,
    ClientCreated,
    ClientOut,
    ClientPath,
    ClientUpdate,
    KeyCreate,
    KeyCreated,
    KeyPath,
    KeyRotate,
    MasterKeyOut,
    Nothing,
    OwnClientUpdate,
)
from chatserver.infra.secrets import Key, KeyHasher, new_master_key
from chatserver.infra.slow_hash import SlowHasher
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.events import SYSTEM
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page, PageRequest
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty
from chatserver.realtime.ports import Closing

FIRST_KEY = "first key"


class ClientService:
    """Tenants. `kick` closes sockets and clears caches on every node, once the change is true."""

    def __init__(
        self,
        *,
        clients: ClientRepository,
        keys: "MasterKeyService",
        issuers: Issuers,
        recorder: Recorder,
        kick: Callable[[Closing], None],
        on_change: Mapping[str, Callable[[UUID], Awaitable[None]]],
    ) -> None:
        self._clients = clients
        self._keys = keys
        self._issuers = issuers
        self._recorder = recorder
        self._kick = kick
        # What other features do about a setting, by its name.
        self._on_change = on_change

    async def create(self, principal: Principal, command: ClientCreate) -> ClientCreated:
        client_id = uuid7()
        # Hashing takes tens of milliseconds: before the first statement no connection is held.
        minted = await self._keys.mint(client_id, FIRST_KEY)
        slug = await self._claim_slug(client_id, command)
        row, key = await self._keys.keep(minted)
        self._recorder.audit(client_id, principal, "client.create", "client", first_key=row.id)
        return ClientCreated(id=client_id, slug=slug, name=command.name, master_key=key)

    async def _claim_slug(self, client_id: UUID, command: ClientCreate) -> str:
        if command.slug is not None:
            if await self._clients.add(id=client_id, slug=command.slug, name=command.name):
                return command.slug
            raise SlugTakenError(issues=({"field": "slug", "issue": "is taken"},))
        for slug in slug_candidates(command.name):
            if await self._clients.add(id=client_id, slug=slug, name=command.name):
                return slug
        raise SlugTakenError  # the candidates don't end

    async def list(self, _: Principal, page: PageRequest) -> Page[ClientOut]:
        found = await self._clients.list(page)
        return Page[ClientOut].of([_out(it) for it in found], page, await self._clients.count())

    async def get(self, _: Principal, command: ClientPath) -> ClientOut:
        return await self._shown(_known(await self._clients.find(command.id)))

    async def own(self, principal: Principal, _: Nothing) -> ClientOut:
        return await self._shown(_known(await self._clients.find(principal.client_id)))

    async def find(self, name: str) -> ClientOut:
        """Find a client by slug or id, for the command line.

        Raises:
            ClientNotFoundError: there is none.
        """
        found = await self._clients.find_by_slug(name)
        if found is None:
            try:
                found = await self._clients.find(UUID(name))
            except ValueError:
                found = None
        return _out(_known(found))

    async def update(self, principal: Principal, command: ClientUpdate) -> ClientOut:
        return await self._change(principal, command.id, command, status=command.status)

    async def update_own(self, principal: Principal, command: OwnClientUpdate) -> ClientOut:
        return await self._change(principal, principal.client_id, command)

    async def disable(self, principal: Principal, command: ClientPath) -> ClientOut:
        return await self._change(principal, command.id, OwnClientUpdate(), status="disabled")

    async def _change(
        self,
        principal: Principal,
        client_id: UUID,
        command: OwnClientUpdate,
        *,
        status: str | None = None,
    ) -> ClientOut:
        settings = command.changed_settings()
        issuers = command.jwt_issuers
        if issuers is not None:
            # Names are looked up: before the first statement no connection is held.
            await self._issuers.check(issuers)
        changed = _known(
            await self._clients.change(
                client_id, name=command.name, status=status, settings=settings
            )
        )
        if "jwt_issuers" in command.model_fields_set:
            await self._issuers.replace(client_id, issuers or ())
        named = {"name": command.name, "status": status}
        changes = {member: value for member, value in named.items() if value is not None}
        self._recorder.audit(
            client_id, principal, "client.update", "client", **changes, settings=settings
        )
        for name in settings:
            if name in self._on_change:
                await self._on_change[name](client_id)
        if status == "disabled":
            reason = "The application was disabled."
            closing = Closing(code="auth.revoked", reason=reason, client_id=client_id)
            self._recorder.after_commit(partial(self._kick, closing))
        return await self._shown(changed)

    async def _shown(self, client: Client) -> ClientOut:
        issuers = await self._issuers.shown(client.id)
        return _out(client).model_copy(update={"jwt_issuers": issuers})


class MasterKeyService:
    """A client's master keys: shown once, rotated with an overlap."""

    def __init__(
        self,
        *,
        keys: ClientKeyRepository,
        hasher: KeyHasher,
        slow: SlowHasher,
        recorder: Recorder,
        kick: Callable[[Closing], None],
    ) -> None:
        self._keys = keys
        self._hasher = hasher
        self._slow = slow
        self._recorder = recorder
        self._kick = kick

    async def mint(self, client_id: UUID, name: str) -> tuple[ClientKey, Key]:
        """Make a key that is not kept yet; no statement runs."""
        key = new_master_key()
        row = ClientKey(
            id=uuid7(),
            client_id=client_id,
            kid=key.kid,
            name=name,
            mac=self._hasher.mac(key),
            pepper_id=self._hasher.pepper_id,
            bcrypt_hash=await self._slow.hash(key.secret),
        )
        return row, key

    async def keep(
        self, minted: tuple[ClientKey, Key], *, expires_in: timedelta | None = None
    ) -> tuple[ClientKey, str]:
        """Insert a minted key; give its row and the text that is shown once."""
        row, key = minted
        return await self._keys.add(row, expires_in=expires_in), key.text

    async def list(self, principal: Principal, page: PageRequest) -> Page[MasterKeyOut]:
        found = await self._keys.list_live(principal.client_id, page)
        counted = await self._keys.count_live(principal.client_id)
        return Page[MasterKeyOut].of([MasterKeyOut(**_shown(it)) for it in found], page, counted)

    async def create(self, principal: Principal, command: KeyCreate) -> KeyCreated:
        minted = await self.mint(principal.client_id, command.name)
        seconds = command.expires_in_s
        expires_in = None if seconds is None else timedelta(seconds=seconds)
        row, key = await self.keep(minted, expires_in=expires_in)
        self._note(principal, "client_key.create", row.id, name=row.name, expires_in_s=seconds)
        return KeyCreated(**_shown(row), key=key)

    async def rotate(self, principal: Principal, command: KeyRotate) -> KeyCreated:
        minted = await self.mint(principal.client_id, "")
        await self._keys.lock(principal.client_id)
        old = await self._keys.find_live(principal.client_id, command.id)
        if old is None:
            raise KeyNotFoundError
        minted[0].name = old.name
        row, key = await self.keep(minted)
        await self._end(
            principal.client_id,
            old.id,
            timedelta() if command.now else timedelta(seconds=command.overlap_s),
        )
        overlap_s = 0 if command.now else command.overlap_s
        self._note(principal, "client_key.rotate", old.id, new_id=row.id, overlap_s=overlap_s)
        return KeyCreated(**_shown(row), key=key)

    async def delete(self, principal: Principal, command: KeyPath) -> Empty:
        await self._keys.lock(principal.client_id)
        if await self._keys.find_live(principal.client_id, command.id) is None:
            raise KeyNotFoundError
        if await self._keys.count_live(principal.client_id) == 1:
            raise LastKeyError
        await self._end(principal.client_id, command.id, timedelta())
        self._note(principal, "client_key.delete", command.id)
        return Empty()

    async def reissue(self, client_id: UUID, *, name: str, overlap: timedelta) -> str:
        """Give a client a new key in place of all others, for whoever lost them.

        The others end after `overlap`. The key's text is shown here and nowhere else.
        """
        minted = await self.mint(client_id, name)
        await self._keys.lock(client_id)
        await self._end(client_id, None, overlap)
        row, key = await self.keep(minted)
        # Only the command line does this; whoever may run it needs no key.
        overlap_s = overlap.total_seconds()
        self._recorder.audit(
            client_id, SYSTEM, "client_key.reissue", f"key:{row.id}", overlap_s=overlap_s
        )
        return key

    def _note(
        self,
        principal: Principal,
        action: str,
        key_id: UUID,
        **details: Any,  # noqa: ANN401 - JSON
    ) -> None:
        subject = f"key:{key_id}"
        self._recorder.audit(principal.client_id, principal, action, subject, **details)

    async def _end(self, client_id: UUID, key_id: UUID | None, overlap: timedelta) -> None:
        if overlap:
            await self._keys.expire(client_id, within=overlap, key_id=key_id)
            return
        for kid in await self._keys.revoke(client_id, key_id=key_id):
            closing = Closing(code="auth.revoked", reason="The key was revoked.", kid=kid)
            self._recorder.after_commit(partial(self._kick, closing))


def _known(client: Client | None) -> Client:
    if client is None:
        raise ClientNotFoundError
    return client


def _out(client: Client) -> ClientOut:
    settings: dict[str, Any] = client.settings
    return ClientOut(
        id=client.id,
        slug=client.slug,
        name=client.name,
        status="active" if client.status == "active" else "disabled",
        cors_origins=settings.get("cors_origins"),
        limits=settings.get("limits") or {},
        client_limits=settings.get("client_limits") or {},
        quotas=settings.get("quotas") or {},
        room_deactivation=settings.get("room_deactivation") or {},
        retention=settings.get("retention") or {},
        key_reuse=settings.get("key_reuse") or REVOKE_FAMILY,
        chat=settings.get("chat") or {},
        message_notifications=settings.get("message_notifications") or {},
        search_language=settings.get("search_language") or "simple",
        created_at=client.created_at,
        updated_at=client.updated_at,
    )


def _shown(key: ClientKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }
