"""`chatserver check`: one line for each part: ok, a problem, and how to mend it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Final

import asyncpg
import orjson
import redis.asyncio
import redis.exceptions
import typer

from chatserver.assistant.embedding.carried import CarriedFileError, carried
from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.local import NAME as EMBEDDED
from chatserver.assistant.embedding.remote import RemoteEmbedder
from chatserver.assistant.retrieval.indexing import OLDEST_PGVECTOR
from chatserver.infra import migrations
from chatserver.infra.language_model import LanguageModelError
from chatserver.kernel.errors import UnavailableError
from chatserver.settings import Settings, load
from chatserver.wiring.answers import language_model
from chatserver.wiring.documents import embedding_choice, reranker
from chatserver.wiring.files import open_store

CONNECT_S: Final = 5.0
# The first version of each branch in which CVE-2025-49844 and its neighbours are mended.
_MENDED: Final = {
    "redis": ((6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)),
    "valkey": ((7, 2, 11), (8, 0, 6), (8, 1, 4)),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """How one part is. `mend` is a sentence for whoever reads it, empty when all is well."""

    part: str
    ok: bool
    detail: str
    mend: str = ""


def check(
    deploy: Annotated[bool, typer.Option("--deploy", help="Add the rules of production.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Check settings, database, roles, schema, Redis, storage. Exits 1 when one needs mending."""
    settings = load()
    findings = asyncio.run(_all(settings, deploy=deploy))
    if json:
        typer.echo(orjson.dumps({"checks": [asdict(found) for found in findings]}).decode())
    else:
        for found in findings:
            mark = "ok     " if found.ok else "problem"
            typer.echo(f"{mark}  {found.part}: {found.detail}")
            if found.mend:
                typer.echo(f"         {found.mend}")
    if not all(found.ok for found in findings):
        raise typer.Exit(1)


async def _all(settings: Settings, *, deploy: bool) -> list[Finding]:
    parts: list[Callable[[Settings], Awaitable[list[Finding]]]] = [
        _database,
        _redis,
        _queue,
        _storage,
        _embedding,
        _reranking,
        _language_model,
        _dashboard,
    ]
    found = [Finding("settings", ok=True, detail=f"{settings.environment}, all present")]
    for part in parts:
        found.extend(await part(settings))
    if deploy:
        found.extend(_production(settings))
        found.append(await _patched(settings))
    return found


async def _database(settings: Settings) -> list[Finding]:
    url = settings.database_url.get_secret_value()
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        mend = "Start PostgreSQL, check DATABASE_URL, then run `chatserver migrate`."
        return [Finding("database", ok=False, detail=f"can't connect ({error})", mend=mend)]
    try:
        version = await connection.fetchval("show server_version")
        found = [Finding("database", ok=True, detail=f"PostgreSQL {version}")]
        found.append(await _schema(connection))
        found.append(await _role(connection))
        found.append(await _vectors(connection))
        return found
    finally:
        await connection.close()


async def _schema(connection: "asyncpg.Connection[asyncpg.Record]") -> Finding:
    mend = "Run `chatserver migrate`."
    try:
        revision = await connection.fetchval("select version_num from alembic_version")
    except asyncpg.PostgresError:
        return Finding("schema", ok=False, detail="there is none", mend=mend)
    head = migrations.head()
    if revision != head:
        return Finding(
            "schema", ok=False, detail=f"{revision}, this version needs {head}", mend=mend
        )
    return Finding("schema", ok=True, detail=f"revision {revision}")


async def _role(connection: "asyncpg.Connection[asyncpg.Record]") -> Finding:
    owns = await connection.fetchval(
        "select rolsuper or rolcreaterole or has_schema_privilege(current_user, 'public', 'create')"
        " from pg_roles where rolname = current_user"
    )
    if owns:
        return Finding(
            "application role",
            ok=False,
            detail="may change the schema",
            mend="Name another role in DATABASE_URL and run `chatserver migrate`: it creates it.",
        )
    return Finding("application role", ok=True, detail="may read and write rows, nothing else")


async def _vectors(connection: "asyncpg.Connection[asyncpg.Record]") -> Finding:
    version = await connection.fetchval(
        "select extversion from pg_extension where extname = 'vector'"
    )
    if version is None:
        mend = "Install pgvector 0.8.4 or newer in PostgreSQL, then run `chatserver migrate`."
        return Finding("pgvector", ok=False, detail="is not there", mend=mend)
    parts = tuple(int(part) for part in version.split(".") if part.isdigit())
    if parts < OLDEST_PGVECTOR:
        mend = "Upgrade to 0.8.4 or newer: until then large bots are searched without an index."
        return Finding("pgvector", ok=False, detail=f"version {version}", mend=mend)
    return Finding("pgvector", ok=True, detail=f"version {version}")


async def _language_model(settings: Settings) -> list[Finding]:
    """Ask the configured model for one word, as a worker would."""
    model = language_model(settings)
    if model is None:
        detail = "none: answers are extracts of their sources (set OPENAI_API_KEY for a model)"
        return [Finding("language model", ok=True, detail=detail)]
    try:
        async with asyncio.timeout(settings.answer_first_token_s):
            asked = [{"role": "user", "content": "Say: ok"}]
            async for _ in model.stream(asked, max_tokens=16):
                break
    except (LanguageModelError, TimeoutError) as error:
        said = str(error) or "no answer in time"
        mend = "Check OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL, and that it is reached."
        return [Finding("language model", ok=False, detail=said, mend=mend)]
    finally:
        await model.close()
    return [Finding("language model", ok=True, detail=f"{model.model} at {model.base_url}")]


async def _embedding(settings: Settings) -> list[Finding]:
    choice = embedding_choice(settings)
    if choice.base_url is None:
        try:
            await asyncio.to_thread(carried, "model")
            await asyncio.to_thread(carried, "vocabulary")
        except CarriedFileError as error:
            return [Finding("embedding", ok=False, detail=str(error), mend="Run `make install`.")]
        return [Finding("embedding", ok=True, detail=f"{EMBEDDED}, embedded")]
    remote = RemoteEmbedder(name=choice.model, base_url=choice.base_url, api_key=choice.api_key)
    try:
        dimension = (await remote.embed(["dimension"])).shape[1]
    except EmbedderAwayError as error:
        mend = "Check EMBEDDING_BASE_URL, EMBEDDING_MODEL and its key; searches use words alone."
        return [Finding("embedding", ok=False, detail=str(error), mend=mend)]
    finally:
        await remote.close()
    return [Finding("embedding", ok=True, detail=f"{choice.model}, {dimension} dimensions")]


async def _reranking(settings: Settings) -> list[Finding]:
    endpoint = reranker(settings)
    if endpoint is None:
        return []
    try:
        await endpoint.scores("order?", ["order", "chaos"])
    except UnavailableError as error:
        mend = "Check RERANK_BASE_URL, RERANK_MODEL and its key; searches keep their own order."
        return [Finding("re-ranking", ok=False, detail=str(error), mend=mend)]
    finally:
        await endpoint.close()
    return [Finding("re-ranking", ok=True, detail=f"{settings.rerank_model} answers")]


async def _dashboard(settings: Settings) -> list[Finding]:
    if settings.dashboard_database_url is None:
        return []
    url = settings.dashboard_database_url.get_secret_value()
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
        try:
            for table in ("chatserver_bot", "chatserver_source"):
                await connection.fetch(f"select * from {table} limit 0")  # noqa: S608 - two names
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        mend = "Check DASHBOARD_DATABASE_URL; docs/assistant.md says which tables it must have."
        return [Finding("dashboard database", ok=False, detail=str(error), mend=mend)]
    return [Finding("dashboard database", ok=True, detail="bots and sources can be read")]


async def _redis(settings: Settings) -> list[Finding]:
    return [await _ping("redis", settings.redis_url.get_secret_value(), "REDIS_URL")]


async def _queue(settings: Settings) -> list[Finding]:
    return [await _ping("queue", settings.queue_url, "QUEUE_REDIS_URL or REDIS_URL")]


async def _storage(settings: Settings) -> list[Finding]:
    store = open_store(settings)
    place = settings.s3_bucket or str(settings.files_dir.absolute())
    try:
        async with asyncio.timeout(CONNECT_S):
            await store.ping()
    except (UnavailableError, TimeoutError) as error:
        mend = (
            "Check S3_ENDPOINT_URL, the bucket's name and its key."
            if settings.s3_bucket
            else "Make FILES_DIR a directory that the server may write to, on a disk with room."
        )
        return [Finding("storage", ok=False, detail=str(error) or "no answer", mend=mend)]
    finally:
        store.close()
    return [Finding("storage", ok=True, detail=place)]


async def _ping(part: str, url: str, name: str) -> Finding:
    client = redis.asyncio.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    try:
        info = await client.info("server")
    except (OSError, redis.exceptions.RedisError) as error:
        mend = f"Start Redis or check {name}; without it the server works, slower."
        return Finding(part, ok=False, detail=f"can't connect ({type(error).__name__})", mend=mend)
    finally:
        await client.aclose()
    version = info.get("valkey_version") or info.get("redis_version")
    return Finding(part, ok=True, detail=f"version {version}")


def is_patched(product: str, version: str) -> bool:
    """Tell whether a Redis or Valkey has the mends of October 2025 to its Lua.

    Whoever may run scripts in one that hasn't can run anything on its machine (CVE-2025-49844), and
    the limits are scripts. Of a branch that is not listed, newer ones have them, older ones not.
    """
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    fixed = next((it for it in _MENDED[product] if it[:2] == numbers[:2]), None)
    return numbers >= fixed if fixed is not None else numbers > max(_MENDED[product])


async def _patched(settings: Settings) -> Finding:
    url = settings.redis_url.get_secret_value()
    client = redis.asyncio.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    try:
        info = await client.info("server")
    except (OSError, redis.exceptions.RedisError):
        return Finding("redis scripts", ok=False, detail="not known", mend="Start Redis.")
    finally:
        await client.aclose()
    product = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get("valkey_version") or info.get("redis_version"))
    if is_patched(product, version):
        return Finding("redis scripts", ok=True, detail=f"{product} {version} is mended")
    known = ", ".join(".".join(map(str, it)) for it in _MENDED[product])
    return Finding(
        "redis scripts",
        ok=False,
        detail=f"{product} {version} lets scripts run anything (CVE-2025-49844)",
        mend=f"Upgrade to one of {known}, or newer.",
    )


def _production(settings: Settings) -> list[Finding]:
    return [
        Finding(
            "environment",
            ok=settings.environment == "production",
            detail=settings.environment,
            mend="" if settings.environment == "production" else "Set ENVIRONMENT=production.",
        ),
        Finding(
            "public address",
            ok=settings.public_url is not None,
            detail=settings.public_url or "not set",
            mend="" if settings.public_url else "Set PUBLIC_URL to where callers reach the server.",
        ),
        Finding(
            "log format",
            ok=settings.log_format == "json",
            detail=settings.log_format,
            mend="" if settings.log_format == "json" else "Set LOG_FORMAT=json for machines.",
        ),
    ]
