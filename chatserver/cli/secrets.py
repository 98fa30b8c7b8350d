"""`chatserver secrets …`: the key ring, the peppers and the signatures of reports."""

import base64
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer
from sqlalchemy import text

from chatserver.api_keys.rotation import place as place_of_key
from chatserver.bootstrap import Container
from chatserver.cli.clients import Json, say, with_container
from chatserver.deliveries.service import place as place_of_response
from chatserver.infra.database import Database
from chatserver.infra.idempotency import KeyUse, place
from chatserver.infra.sealed import Sealed, SealedColumn, Unreadable
from chatserver.infra.secrets import SecretBox
from chatserver.infra.signing import Signed, is_signed
from chatserver.notifications.batches.models import place_of_batch, place_of_part
from chatserver.notifications.devices.service import place as place_of_device
from chatserver.notifications.push.models import place_of_key as place_of_server_key
from chatserver.notifications.requests.models import place_of_address, place_of_content
from chatserver.privacy.policies import canonical
from chatserver.privacy.schemas import ErasureOut, Signature
from chatserver.providers.service import place_of_config
from chatserver.settings import Settings
from chatserver.webhooks.endpoints.models import secret_place
from chatserver.webhooks.sources.models import place_of_secret as place_of_inbound_secret

group = typer.Typer(help="Stored credentials and the keys that protect them.", no_args_is_help=True)

SHOWN: Final = 20


def _of_key(behind: int) -> Any:  # noqa: ANN401 - a function of a row
    return lambda row: place_of_key(row["kid"], row["cur_gen"] + behind)


SEALED: Final = (
    SealedColumn("key_family", "cur_ct", ("kid",), _of_key(0), also=("cur_gen",)),
    SealedColumn("key_family", "pend_ct", ("kid",), _of_key(1), also=("cur_gen",)),
    SealedColumn(
        "idempotency",
        "answer",
        ("client_id", "caller", "key"),
        lambda row: place(KeyUse(row["client_id"], row["caller"], row["key"], b"")),
    ),
    SealedColumn(
        "webhook_secret",
        "sealed",
        ("id",),
        lambda row: secret_place(row["client_id"], row["endpoint_id"], row["id"]),
        also=("client_id", "endpoint_id"),
    ),
    SealedColumn(
        "delivery_attempt",
        "response",
        ("delivery_id", "generation", "no"),
        lambda row: place_of_response(
            row["client_id"], row["delivery_id"], row["generation"], row["no"]
        ),
        also=("client_id",),
    ),
    SealedColumn(
        "notification_content",
        "sealed",
        ("notification_id", "channel"),
        lambda row: place_of_content(row["client_id"], row["notification_id"]),
        also=("client_id",),
    ),
    SealedColumn(
        "notification_batch",
        "sealed",
        ("id",),
        lambda row: place_of_batch(row["client_id"], row["id"]),
        also=("client_id",),
    ),
    SealedColumn(
        "notification_batch_part",
        "sealed",
        ("batch_id", "no"),
        lambda row: place_of_part(row["client_id"], row["batch_id"], row["no"]),
        also=("client_id",),
    ),
    SealedColumn(
        "notification_delivery",
        "address",
        ("delivery_id",),
        lambda row: place_of_address(row["client_id"], row["delivery_id"]),
        also=("client_id",),
    ),
    SealedColumn(
        "push_device",
        "sealed",
        ("id",),
        lambda row: place_of_device(row["client_id"], row["id"]),
        also=("client_id",),
    ),
    SealedColumn("server_key", "sealed", ("name",), lambda row: place_of_server_key(row["name"])),
    SealedColumn(
        "inbound_secret",
        "sealed",
        ("id",),
        lambda row: place_of_inbound_secret(row["client_id"], row["id"]),
        also=("client_id",),
    ),
    SealedColumn(
        "provider",
        "sealed",
        ("id",),
        lambda row: place_of_config(row["client_id"], row["id"]),
        also=("client_id",),
    ),
)
# Of the keys that live: how many were made with a pepper that is set, and with an older one.
_PEPPERED: Final = text("""
select 'master keys' as what, substring(mac from 1 for 4) as name, length(mac) as size,
  count(*) as n
from client_key where revoked_at is null and coalesce(expires_at > clock_timestamp(), true)
group by 2, 3
union all
select 'scoped keys', substring(cur_mac from 1 for 4), length(cur_mac), count(*)
from key_family where status = 'active'
  and clock_timestamp() < least(idle_expires_at, abs_expires_at)
group by 2, 3
""")
_BARE_MAC: Final = 32


@group.callback()
def secrets() -> None:
    """Stored credentials and the keys that protect them."""


@group.command()
def rotate(json: Json = False) -> None:
    """Seal every stored credential with the newest key of SECRET_KEYS, while the server runs.

    Put the new key in front of SECRET_KEYS on every node first; once this and `secrets check` say
    ok, the old key may be dropped. Exits 1 when something can't be opened.
    """

    async def work(container: Container) -> dict[str, Any]:
        sealed = Sealed(container.database, container.box, SEALED)
        with _bar(await sealed.total(), "sealing", json=json) as bar:
            done, unreadable = await sealed.rotate(bar.update)
        return {"resealed": done, "unreadable": [_shown(it) for it in unreadable]}

    _tell(with_container(work), json=json)


@group.command()
def check(
    report: Annotated[
        Path | None, typer.Option(help="A report of an erasure (JSON) whose signature to check.")
    ] = None,
    json: Json = False,
) -> None:
    """Open every stored credential; list those that can't be opened and exit 1.

    It also says how many living keys wait under which pepper, and checks the signatures of all
    reports of erasures, or of the one in a file.
    """

    async def work(container: Container) -> dict[str, Any]:
        if report is not None:
            return _check_report(container, report.read_bytes())
        sealed = Sealed(container.database, container.box, SEALED)
        with _bar(await sealed.total(), "opening", json=json) as bar:
            unreadable = [_shown(it) for it in await sealed.check(bar.update)]
        said, lost = await _peppers(container)
        reports, forged = await _reports(container)
        return {
            "unreadable": [*unreadable, *lost, *forged],
            "peppers": said,
            "signed_reports": reports,
            "public_keys": [key.hex() for key in container.privacy.signer.public_keys],
        }

    _tell(with_container(work), json=json)


async def problem(settings: Settings) -> str:
    """Say why a server must not start with these keys; empty when it may. Opens nothing.

    Raises:
        UnavailableError: PostgreSQL is away.
    """
    database = Database(
        settings.database_url.get_secret_value(), name="chatserver check", pool_size=1
    )
    box = SecretBox.from_text([key.get_secret_value() for key in settings.secret_keys])
    try:
        if await Sealed(database, box, SEALED).has_unknown_keys():
            return (
                "Some stored credentials were sealed with a key that is not in SECRET_KEYS. Put the"
                " key back behind the newest one, then run `chatserver secrets rotate`;"
                " `chatserver secrets check` lists them."
            )
    finally:
        await database.close()
    return ""


async def _peppers(container: Container) -> tuple[list[dict[str, Any]], list[str]]:
    names = container.hasher.names
    said: list[dict[str, Any]] = []
    lost: list[str] = []
    async with container.database.transaction() as session:
        found = (await session.execute(_PEPPERED)).all()
    for row in found:
        if row.size == _BARE_MAC:
            state = "unnamed"
        elif row.name in names:
            state = "newest" if row.name == names[0] else "older"
        else:
            state = "unknown"
        said.append({"keys": row.what, "pepper": state, "count": row.n})
        # A device logs in again; a tenant whose master key is void is locked out.
        if state == "unknown" and row.what == "master keys":
            lost.append(f"client_key.mac: {row.n} master keys under a pepper that is not set")
    return said, lost


async def _reports(container: Container) -> tuple[int, list[str]]:
    async with container.database.transaction() as session:
        found = (
            await session.execute(
                text("select id, report, signature, signed_by from erasure where state = 'done'")
            )
        ).all()
    forged = [
        f"erasure.report: id={row.id}"
        for row in found
        if not is_signed(row.report, Signed(row.signature, row.signed_by))
    ]
    return len(found), forged


def _check_report(container: Container, content: bytes) -> dict[str, Any]:
    shown = ErasureOut.model_validate_json(content)
    signature = shown.signature
    is_right = (
        shown.report is not None
        and signature is not None
        and is_signed(canonical(shown.report), _signed(signature))
    )
    is_ours = (
        signature is not None
        and _signed(signature).public_key in container.privacy.signer.public_keys
    )
    problems = []
    if not is_right:
        problems.append("the report was changed, or is not signed")
    if not is_ours:
        problems.append("it was signed with a key that does not follow from SECRET_KEYS")
    return {"id": str(shown.id), "unreadable": problems}


def _signed(signature: Signature) -> Signed:
    return Signed(base64.b64decode(signature.value), base64.b64decode(signature.public_key))


def _tell(said: dict[str, Any], *, json: bool) -> None:
    unreadable: list[str] = said["unreadable"]
    if json:
        typer.echo(orjson.dumps(said).decode())
    else:
        say({name: value for name, value in said.items() if name != "unreadable"}, json=False)
        for each in unreadable[:SHOWN]:
            typer.echo(f"can't be opened: {each}", err=True)
        if len(unreadable) > SHOWN:
            typer.echo(f"and {len(unreadable) - SHOWN} more", err=True)
        typer.echo("ok" if not unreadable else "problem", err=bool(unreadable))
    if unreadable:
        raise typer.Exit(1)


def _bar(length: int, label: str, *, json: bool) -> Any:  # noqa: ANN401 - click's own type
    # Only a person at a terminal sees it; a log or `--json` must not be drawn into.
    return typer.progressbar(length=length, label=label, hidden=json)


def _shown(unreadable: Unreadable) -> str:
    return f"{unreadable.column}: {unreadable.row}"
