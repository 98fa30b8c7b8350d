"""`chatserver seed`: demo data, and its removal."""

from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sqlalchemy import text

from chatserver.assistant.bots.schemas import BotPath, CreateBot, ListBots
from chatserver.assistant.documents.schemas import CreateDocuments
from chatserver.bootstrap import Container
from chatserver.cli import seed_lines, seed_texts
from chatserver.cli.clients import OPERATOR, Json, checked, say, with_container
from chatserver.cli.transfer import bar
from chatserver.clients.errors import ClientNotFoundError
from chatserver.clients.schemas import ClientCreate
from chatserver.infra.staging import Staging
from chatserver.kernel.clock import utc_now
from chatserver.kernel.principal import Caller, Principal
from chatserver.rooms.schemas import RoomRef
from chatserver.settings import load
from chatserver.wiring.transfer import open_import

PAGE: Final = 100
SLICE: Final = 1000

# Only what carries the mark and the name: others may have rooms and people here, too.
_ROOMS: Final = text(
    "select id, deleted_at is not null as is_deleted from room where client_id = :client"
    " and external_id like 'seed-%' and details @> '{\"seed\": true}' order by id"
)
# Who was taken into other rooms stays: those are not the seed's.
_PEOPLE: Final = text(
    "delete from app_user where id = any (array(select id from app_user u"
    "  where client_id = :client and external_id like 'seed-%' and details @> '{\"seed\": true}'"
    "  and not exists (select from member m where m.user_id = u.id)"
    "  and not exists (select from legal_hold h where h.user_id = u.id) limit :limit))"
)


class SizeName(StrEnum):
    small = "small"
    medium = "medium"
    large = "large"


def seed(
    size: Annotated[SizeName, typer.Option(help="How much of it.")] = SizeName.small,
    client: Annotated[str, typer.Option(help="Slug or id; made if it is not there.")] = "seed",
    clear: Annotated[bool, typer.Option("--clear", help="Remove what seed made.")] = False,
    documents_only: Annotated[bool, typer.Option("--documents-only")] = False,
    conversations_only: Annotated[bool, typer.Option("--conversations-only")] = False,
    json: Json = False,
) -> None:
    """Make demo data: people, rooms, messages, reactions, a bot with documents.

    Doing it again adds nothing; a larger size adds to a smaller one. Refused in production.
    """
    if documents_only and conversations_only:
        raise typer.BadParameter("Say --documents-only or --conversations-only, not both.")
    if load().environment == "production":
        typer.echo(
            "Demo data is refused where ENVIRONMENT is production. Seed another database, of a"
            " server with ENVIRONMENT=staging or development.",
            err=True,
        )
        raise typer.Exit(1)

    async def work(container: Container) -> dict[str, Any]:
        seeding = _Seeding(container, conversations=not documents_only)
        seeding.documents = not conversations_only
        if clear:
            return await seeding.clear(client)
        return await seeding.make(client, seed_lines.SIZES[size.value])

    done = with_container(work)
    if json:
        say(done, json=True)
        return
    for line in _told(done):
        typer.echo(line)


class _Seeding:
    def __init__(self, container: Container, *, conversations: bool) -> None:
        self._container = container
        self.conversations = conversations
        self.documents = True

    async def make(self, client: str, size: seed_lines.Size) -> dict[str, Any]:
        done, principal = await self._client(client)
        with bar() as progress:
            if self.conversations:
                taken = open_import(
                    self._container, principal.client_id, files=self._container.files
                )
                with Staging() as staging:
                    made = seed_lines.lines(size, utc_now().replace(second=0, microsecond=0))
                    staged = taken.stage(staging, made, lambda _: None)
                    counted = await taken.apply(staging, progress("conversations", staged))
                done |= counted.model_dump()
            if self.documents:
                step = progress("documents", size.documents)
                bot_id = await self._bot(principal) or await self._make_bot(principal)
                ids: set[UUID] = set()
                before = await self._documents(principal.client_id, bot_id)
                for title, content in seed_lines.documents(size):
                    command = CreateDocuments(bot_id=bot_id, text=content, title=title)
                    given = await self._container.documents.intake.add(principal, command)
                    ids |= {each.id for each in given.items}
                    step(1)
                done |= {"documents": len(ids - before), "documents_known": len(ids & before)}
        return done

    async def clear(self, client: str) -> dict[str, Any]:
        """Remove rooms through their service, so that whoever is connected is told."""
        principal = await self._find(client)
        if principal is None:
            return {"client": client, "removed": {}}
        removed: dict[str, int] = {}
        with bar() as progress:
            if self.documents:
                removed |= await self._clear_documents(principal)
            if self.conversations:
                removed["rooms"], kept = await self._clear_rooms(principal, progress)
                removed["users"] = await self._clear_people(principal.client_id)
                if kept:
                    removed["rooms_held"] = kept
        return {"client": principal.client_slug, "removed": removed}

    async def _clear_documents(self, principal: Principal) -> dict[str, int]:
        parts = self._container.documents
        bot_id = await self._bot(principal)
        if bot_id is None:
            return {"documents": 0}
        ids = await self._documents(principal.client_id, bot_id)
        async with parts.open_bots() as bots:
            await bots.delete(principal, BotPath(bot_id=bot_id))
        await parts.purger.purge_bot(principal.client_id, bot_id)
        return {"documents": len(ids)}

    async def _clear_rooms(self, principal: Principal, progress: Any) -> tuple[int, int]:  # noqa: ANN401
        async with self._container.database.transaction() as session:
            rooms = list(await session.execute(_ROOMS, {"client": principal.client_id}))
        step = progress("rooms", len(rooms))
        held = 0
        for room in rooms:
            if not room.is_deleted:
                async with self._container.open_rooms() as service:
                    await service.delete(principal, RoomRef(room_id=room.id))
            is_held = await self._container.privacy.is_room_held(principal.client_id, room.id)
            held += is_held
            is_more = not is_held
            while is_more:
                async with self._container.open_rooms() as service:
                    is_more = await service.purge(principal.client_id, room.id, limit=SLICE)
            step(1)
        return len(rooms) - held, held

    async def _clear_people(self, client_id: UUID) -> int:
        gone, removed = 0, SLICE
        while removed == SLICE:
            async with self._container.database.transaction() as session:
                done = await session.execute(_PEOPLE, {"client": client_id, "limit": SLICE})
                removed = done.rowcount  # type: ignore[attr-defined]  # of a delete
                gone += removed
        return gone

    async def _client(self, name: str) -> tuple[dict[str, Any], Principal]:
        """Find or make the client; a master key is only given for one that was made."""
        found = await self._find(name)
        if found is not None:
            return {"client": found.client_slug, "is_new": False}, found
        command = checked(ClientCreate, {"name": name.capitalize(), "slug": name})
        async with self._container.open_clients() as clients:
            made = await clients.create(OPERATOR, command)
        principal = Principal(caller=Caller.MASTER, client_id=made.id, client_slug=made.slug)
        return {"client": made.slug, "is_new": True, "master_key": made.master_key}, principal

    async def _find(self, name: str) -> Principal | None:
        try:
            async with self._container.open_clients() as clients:
                found = await clients.find(name)
        except ClientNotFoundError:
            return None
        return Principal(caller=Caller.MASTER, client_id=found.id, client_slug=found.slug)

    async def _bot(self, principal: Principal) -> UUID | None:
        page = 1
        while True:
            async with self._container.documents.open_bots() as bots:
                found = (await bots.list_bots(principal, ListBots(page=page, size=PAGE))).items
            for each in found:
                if each.name == seed_lines.BOT:
                    return each.id
            if len(found) < PAGE:
                return None
            page += 1

    async def _make_bot(self, principal: Principal) -> UUID:
        command = CreateBot(name=seed_lines.BOT, instructions=seed_texts.INSTRUCTIONS)
        async with self._container.documents.open_bots() as bots:
            return (await bots.create(principal, command)).id

    async def _documents(self, client_id: UUID, bot_id: UUID) -> set[UUID]:
        async with self._container.database.transaction() as session:
            found = await session.execute(
                text(
                    "select id from document where client_id = :client and bot_id = :bot"
                    " and deleted_at is null"
                ),
                {"client": client_id, "bot": bot_id},
            )
            return set(found.scalars())


def _told(done: dict[str, Any]) -> list[str]:
    if "removed" in done:
        counts = [f"{count} {name}" for name, count in done["removed"].items() if count]
        return [f"Removed from {done['client']}: {', '.join(counts) or 'nothing was there'}."]
    names = ("users", "rooms", "members", "messages", "reactions", "documents")
    counts = [f"{done[name]} {name}" for name in names if done.get(name)]
    lines = [
        f"{done['client']}: made {', '.join(counts)}."
        if counts
        else f"{done['client']}: everything is there already; --clear removes it."
    ]
    if done.get("documents"):
        lines.append(
            "A worker reads the documents; `chatserver documents list` tells how far it is."
        )
    if done["is_new"]:
        lines.append(f"The client is new; its master key, shown once: {done['master_key']}")
        lines.append(
            f"A key for one of its people: chatserver user login {done['client']} seed-ada"
        )
    return lines
