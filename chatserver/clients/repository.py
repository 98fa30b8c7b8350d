"""Every query about tenants and their master keys."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Text, delete, func, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.clients.models import (
    Client,
    ClientKey,
    JwtIssuer,
    RevokedToken,
    StoredIssuer,
    StoredMasterKey,
)
from chatserver.clients.policies import token_name, token_of
from chatserver.infra.database import ACQUIRE_S, Database, outages
from chatserver.kernel.paging import EXACT_TOTAL, PageRequest

_FRESH: Final = {"populate_existing": True}


class ClientRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, *, id: UUID, slug: str, name: str) -> bool:  # noqa: A002 - the column's name
        """Insert a client; False when the slug is taken."""
        made = await self._session.execute(
            insert(Client)
            .values(id=id, slug=slug, name=name, status="active")
            .on_conflict_do_nothing(index_elements=[col(Client.slug)])
            .returning(col(Client.id))
        )
        return made.scalar_one_or_none() is not None

    async def find(self, client_id: UUID) -> Client | None:
        return await self._session.get(Client, client_id)

    async def find_by_slug(self, slug: str) -> Client | None:
        found = await self._session.execute(select(Client).where(col(Client.slug) == slug))
        return found.scalar_one_or_none()

    async def list(self, page: PageRequest) -> Sequence[Client]:
        # Ids are made in the order of time.
        found = await self._session.execute(
            select(Client).order_by(col(Client.id)).offset(page.offset).limit(page.size)
        )
        return found.scalars().all()

    async def count(self) -> int:
        return await _counted(self._session, select(col(Client.id)))

    async def change(
        self,
        client_id: UUID,
        *,
        name: str | None,
        status: str | None,
        settings: dict[str, Any],
    ) -> Client | None:
        """Change what is not None; of the settings, set what is given and remove what is None."""
        values: dict[str, Any] = {"updated_at": func.clock_timestamp()}
        if name is not None:
            values["name"] = name
        if status is not None:
            values["status"] = status
        if settings:
            removed = [member for member, value in settings.items() if value is None]
            given = {member: value for member, value in settings.items() if value is not None}
            kept = col(Client.settings).op("-")(literal(removed, ARRAY(Text)))
            values["settings"] = kept.op("||")(literal(given, JSONB))
        changed = await self._session.execute(
            update(Client)
            .where(col(Client.id) == client_id)
            .values(**values)
            .returning(Client)
            .execution_options(**_FRESH)
        )
        return changed.scalar_one_or_none()


class IssuerRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def list(self, client_id: UUID) -> Sequence[JwtIssuer]:
        found = await self._session.execute(
            select(JwtIssuer)
            .where(col(JwtIssuer.client_id) == client_id)
            .order_by(col(JwtIssuer.issuer), col(JwtIssuer.audience))
        )
        return found.scalars().all()

    async def replace(self, client_id: UUID, issuers: Sequence[JwtIssuer]) -> None:
        """Put these in the place of all that the client has."""
        await self._session.execute(delete(JwtIssuer).where(col(JwtIssuer.client_id) == client_id))
        self._session.add_all(issuers)
        await self._session.flush()


class RevokedTokenRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, rows: Sequence[dict[str, Any]], *, kept: timedelta) -> datetime:
        """Note tokens as revoked, for `kept` from now; give when they may be forgotten."""
        until = func.clock_timestamp() + kept
        draft = insert(RevokedToken).values([row | {"kept_until": until} for row in rows])
        added = await self._session.execute(
            draft.on_conflict_do_update(
                index_elements=[col(RevokedToken.client_id), col(RevokedToken.handle)],
                set_={"kept_until": draft.excluded.kept_until},
            ).returning(col(RevokedToken.kept_until))
        )
        return max(added.scalars())

    async def list(self, client_id: UUID, page: PageRequest) -> Sequence[RevokedToken]:
        found = await self._session.execute(
            select(RevokedToken)
            .where(col(RevokedToken.client_id) == client_id)
            .order_by(col(RevokedToken.revoked_at).desc(), col(RevokedToken.handle))
            .offset(page.offset)
            .limit(page.size)
        )
        return found.scalars().all()

    async def count(self, client_id: UUID) -> int:
        mine = select(col(RevokedToken.handle)).where(col(RevokedToken.client_id) == client_id)
        return await _counted(self._session, mine)


class ClientKeyRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(
        self,
        key: ClientKey,
        *,
        expires_in: timedelta | None,
    ) -> ClientKey:
        expires_at = None if expires_in is None else func.clock_timestamp() + expires_in
        added = await self._session.execute(
            insert(ClientKey)
            .values(
                id=key.id,
                client_id=key.client_id,
                kid=key.kid,
                name=key.name,
                mac=key.mac,
                pepper_id=key.pepper_id,
                bcrypt_hash=key.bcrypt_hash,
                expires_at=expires_at,
            )
            .returning(ClientKey)
        )
        return added.scalar_one()

    async def find_live(self, client_id: UUID, key_id: UUID) -> ClientKey | None:
        found = await self._session.execute(
            select(ClientKey).where(_is_live(client_id), col(ClientKey.id) == key_id)
        )
        return found.scalar_one_or_none()

    async def list_live(self, client_id: UUID, page: PageRequest) -> Sequence[ClientKey]:
        found = await self._session.execute(
            select(ClientKey)
            .where(_is_live(client_id))
            .order_by(col(ClientKey.id))
            .offset(page.offset)
            .limit(page.size)
        )
        return found.scalars().all()

    async def count_live(self, client_id: UUID) -> int:
        return await _counted(self._session, select(col(ClientKey.id)).where(_is_live(client_id)))

    async def lock(self, client_id: UUID) -> None:
        """Keep others from changing the set of the client's keys until this transaction ends."""
        owner = select(col(Client.id)).where(col(Client.id) == client_id)
        await self._session.execute(owner.with_for_update(key_share=True))

    async def revoke(self, client_id: UUID, *, key_id: UUID | None = None) -> list[str]:
        """End a live key, or all of them, and give their kids."""
        ended = await self._session.execute(
            update(ClientKey)
            .where(_is_live(client_id), *([] if key_id is None else [col(ClientKey.id) == key_id]))
            .values(revoked_at=func.clock_timestamp())
            .returning(col(ClientKey.kid))
        )
        return list(ended.scalars())

    async def expire(
        self, client_id: UUID, *, within: timedelta, key_id: UUID | None = None
    ) -> None:
        """Let a live key, or all of them, end `within` a time, unless they end sooner anyway."""
        end = func.clock_timestamp() + within
        await self._session.execute(
            update(ClientKey)
            .where(_is_live(client_id), *([] if key_id is None else [col(ClientKey.id) == key_id]))
            .values(expires_at=func.least(func.coalesce(col(ClientKey.expires_at), end), end))
        )


def _is_live(client_id: UUID) -> ColumnElement[bool]:
    return (
        (col(ClientKey.client_id) == client_id)
        & col(ClientKey.revoked_at).is_(None)
        & or_(
            col(ClientKey.expires_at).is_(None),
            col(ClientKey.expires_at) > func.clock_timestamp(),
        )
    )


async def _counted(session: AsyncSession, found: Any) -> int:  # noqa: ANN401 - any select
    bounded = found.limit(EXACT_TOTAL + 1).subquery()
    counted: int = (await session.execute(select(func.count()).select_from(bounded))).scalar_one()
    return counted


_FIND: Final = """
select k.id, k.kid, k.mac, k.bcrypt_hash, k.client_id, c.slug,
  c.status = 'active' as is_client_active, c.settings -> 'cors_origins' as origins,
  k.revoked_at is not null as is_revoked,
  coalesce(k.expires_at <= clock_timestamp(), false) as is_expired,
  extract(epoch from k.expires_at - clock_timestamp())::float8 as ends_in_s,
  extract(epoch from k.expires_at)::float8 as expires_at
from client_key k join client c on c.id = k.client_id
where k.kid = $1
"""
_TOUCH: Final = text("""
update client_key k set last_used_at = clock_timestamp()
from (
  select id from client_key where kid = any(:kids) order by id for no key update skip locked
) used
where k.id = used.id
""")


_FIND_ISSUERS: Final = """
select i.id, i.client_id, c.slug as client_slug, c.status = 'active' as is_client_active,
  extract(epoch from c.revoked_before)::float8 as client_revoked_before,
  c.settings -> 'cors_origins' as origins, i.issuer, i.audience, i.algorithms, i.pem, i.jwks_url,
  i.user_claim, i.scope_claim, i.required_claims,
  exists (select from revoked_token t where t.client_id = i.client_id and t.handle = $3)
    as is_token_revoked
from jwt_issuer i join client c on c.id = i.client_id
where i.issuer = $1 and i.audience = any ($2::text[])
order by i.id limit 100
"""
_REVOKED_AMONG: Final = """
select t.client_id, t.handle
from unnest($1::uuid[], $2::bytea[]) asked (client_id, handle)
join revoked_token t on t.client_id = asked.client_id and t.handle = asked.handle
"""


class IssuerLookup:
    """Reads issuers before it is known whose token it is: one statement, no transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, issuer: str, audiences: Sequence[str], handle: bytes | None = None
    ) -> list[StoredIssuer]:
        """Find who registered an issuer for one of these audiences; of all clients.

        `handle` is of the one token that is looked at, to tell whether it was revoked.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                pool = await self._database.fast()
                rows = await pool.fetch(_FIND_ISSUERS, issuer, list(audiences), handle)
        return [_stored_issuer(dict(row)) for row in rows]

    async def revoked_among(self, names: Collection[str]) -> set[str]:
        """Tell which of these tokens were revoked; names are `policies.token_name`.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        if not names:
            return set()
        asked = [token_of(name) for name in names]
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                pool = await self._database.fast()
                rows = await pool.fetch(
                    _REVOKED_AMONG, [client for client, _ in asked], [it for _, it in asked]
                )
        return {token_name(row["client_id"], row["handle"]) for row in rows}


def _stored_issuer(values: dict[str, Any]) -> StoredIssuer:
    for name in ("algorithms", "required_claims"):
        values[name] = tuple(values[name])
    values["origins"] = tuple(orjson.loads(values["origins"] or "[]"))
    return StoredIssuer(**values)


class MasterKeyLookup:
    """Reads a key before anything is known of its owner: one statement, no transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, kid: str) -> StoredMasterKey | None:
        """Find a key by its public part.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                row = await (await self._database.fast()).fetchrow(_FIND, kid)
        if row is None:
            return None
        return StoredMasterKey(
            key_id=row["id"],
            kid=row["kid"],
            mac=row["mac"],
            bcrypt_hash=row["bcrypt_hash"],
            is_revoked=row["is_revoked"],
            is_expired=row["is_expired"],
            ends_in_s=row["ends_in_s"],
            expires_at=row["expires_at"],
            client_id=row["client_id"],
            client_slug=row["slug"],
            is_client_active=row["is_client_active"],
            origins=tuple(orjson.loads(row["origins"] or "[]")),
        )

    async def touch(self, kids: Sequence[str]) -> None:
        """Write down that keys were used just now."""
        async with self._database.transaction() as session:
            await session.execute(_TOUCH, {"kids": list(kids)})


_FIND_NUMBERS: Final = """
select settings -> 'limits' as limits, settings -> 'client_limits' as client_limits,
  settings -> 'quotas' as quotas
from client where id = $1
"""


class ClientNumbersLookup:
    """Reads what a client has in place of the default limits and quotas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, client_id: UUID) -> dict[str, dict[str, Any]]:
        """Give `limits` and `quotas`, by name; empty for what was never set.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                row = await (await self._database.fast()).fetchrow(_FIND_NUMBERS, client_id)
        if row is None:
            return {}
        found = {name: _without_nulls(orjson.loads(row[name] or "{}")) for name in row.keys()}  # noqa: SIM118 - a record
        return {"limits": found["limits"] | found["client_limits"], "quotas": found["quotas"]}


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
