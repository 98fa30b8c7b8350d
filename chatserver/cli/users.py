"""`chatserver user …`: keys for people, straight on the database."""

from typing import Annotated, Any

import typer

from chatserver.api_keys.schemas import Login
from chatserver.bootstrap import Container
from chatserver.cli.clients import Json, checked, say, with_container
from chatserver.kernel.principal import Caller, Principal

group = typer.Typer(help="Users of a client.", no_args_is_help=True)


@group.callback()
def users() -> None:
    """Users of a client."""


@group.command()
def login(
    client: Annotated[str, typer.Argument(help="The client's slug or id.")],
    external_id: Annotated[str, typer.Argument(help="The user's name in the application.")],
    device_id: Annotated[
        str | None, typer.Option(help="A known device goes on with its keys.")
    ] = None,
    json: Json = False,
) -> None:
    """Print a fresh scoped key for a user, who is made if unknown."""

    async def work(container: Container) -> dict[str, Any]:
        members: dict[str, Any] = {"external_id": external_id}
        if device_id is not None:
            members["device_id"] = device_id
        command = checked(Login, members)
        async with container.open_clients() as clients:
            found = await clients.find(client)
        principal = Principal(caller=Caller.MASTER, client_id=found.id, client_slug=found.slug)
        async with container.open_api_keys() as keys:
            return (await keys.login(principal, command)).model_dump(mode="json")

    made = with_container(work)
    if json:
        say(made, json=True)
    else:
        typer.echo(made["key"])
