"""`chatserver client …`: tenants, straight on the database."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import orjson
import typer
from pydantic import BaseModel, ValidationError

from chatserver.bootstrap import Container
from chatserver.cli.schema import NotReachedError, schema_problem
from chatserver.clients.schemas import ClientCreate, ClientPath
from chatserver.infra import logging
from chatserver.kernel.errors import DomainError
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.principal import Caller, Principal
from chatserver.settings import SettingsError, load
from chatserver.transport.registry import invalid

group = typer.Typer(help="Tenants: applications that use the server.", no_args_is_help=True)

Result = TypeVar("Result")
Command = TypeVar("Command", bound=BaseModel)
OPERATOR = Principal(caller=Caller.OPERATOR)
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


def with_container(work: Callable[[Container], Awaitable[Result]]) -> Result:
    """Run something on the services; a refusal becomes a sentence and exit code 1."""

    async def inside() -> Result:
        settings = load()
        problem = await schema_problem(settings)
        if problem:
            raise SettingsError(problem)
        # What is printed is the command's answer; whatever else there is to say goes to stderr.
        logging.configure_command()
        container = Container(settings, name="chatserver cli")
        await container.start()
        try:
            return await work(container)
        finally:
            await container.stop()

    try:
        return asyncio.run(inside())
    except NotReachedError as error:
        typer.echo(f"PostgreSQL can't be reached: {error}. Check DATABASE_URL.", err=True)
    except DomainError as error:
        typer.echo(f"{error.message} ({error.code})", err=True)
    raise typer.Exit(1)


def checked(model: type[Command], members: dict[str, Any]) -> Command:
    """Make a command of what was typed.

    Raises:
        PayloadInvalidError: it names what is wrong.
    """
    try:
        return model.model_validate(members)
    except ValidationError as error:
        raise invalid(error) from None


def say(members: dict[str, Any], *, json: bool) -> None:
    """Print members as JSON, or one `name: value` a line."""
    if json:
        typer.echo(orjson.dumps(members).decode())
        return
    for name, value in members.items():
        typer.echo(f"{name}: {value}")


@group.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call the application.")],
    slug: Annotated[
        str | None, typer.Option(help="Its short name; made from NAME unless given.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a client and print its master key, once."""

    async def work(container: Container) -> dict[str, Any]:
        members = {"name": name} if slug is None else {"name": name, "slug": slug}
        command = checked(ClientCreate, members)
        async with container.open_clients() as clients:
            made = await clients.create(OPERATOR, command)
        return made.model_dump(mode="json")

    say(with_container(work), json=json)


@group.command("list")
def list_all(json: Json = False) -> None:
    """List all clients."""

    async def work(container: Container) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            async with container.open_clients() as clients:
                listed = await clients.list(OPERATOR, PageRequest(page=page, size=100))
            found.extend(item.model_dump(mode="json") for item in listed.items)
            if len(listed.items) < listed.size:
                return found
            page += 1

    clients = with_container(work)
    if json:
        typer.echo(orjson.dumps({"items": clients}).decode())
        return
    for client in clients:
        typer.echo(f"{client['id']}  {client['slug']:<24} {client['status']:<9} {client['name']}")


@group.command()
def show(client: Annotated[str, typer.Argument(help="Slug or id.")], json: Json = False) -> None:
    """Show a client and its settings."""

    async def work(container: Container) -> dict[str, Any]:
        async with container.open_clients() as clients:
            return (await clients.find(client)).model_dump(mode="json")

    say(with_container(work), json=json)


@group.command("rotate-master-key")
def rotate_master_key(
    client: Annotated[str, typer.Argument(help="Slug or id.")],
    overlap_hours: Annotated[
        int, typer.Option(min=0, max=168, help="For how long the old keys still work.")
    ] = 24,
    json: Json = False,
) -> None:
    """Give a client a new master key in place of all others, and print it once."""

    async def work(container: Container) -> dict[str, Any]:
        async with container.open_clients() as clients:
            found = await clients.find(client)
        async with container.open_master_keys() as keys:
            key = await keys.reissue(
                found.id, name="rotated by the operator", overlap=timedelta(hours=overlap_hours)
            )
        return {"id": str(found.id), "slug": found.slug, "master_key": key}

    say(with_container(work), json=json)


@group.command()
def disable(client: Annotated[str, typer.Argument(help="Slug or id.")], json: Json = False) -> None:
    """Refuse a client's keys and close its sockets. Nothing that it stored is deleted."""

    async def work(container: Container) -> dict[str, Any]:
        async with container.open_clients() as clients:
            found = await clients.find(client)
            return (await clients.disable(OPERATOR, ClientPath(id=found.id))).model_dump(
                mode="json"
            )

    say(with_container(work), json=json)
