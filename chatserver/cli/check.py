"""`chatserver check`: one line for each part: ok, a problem, and how to mend it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Annotated, Final
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import orjson
import redis.asyncio
import redis.exceptions
import typer

from chatserver.assistant.embedding.carried import CarriedFileError, carried
from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.remote import RemoteEmbedder
from chatserver.assistant.embedding.schemas import LOCAL as EMBEDDED
from chatserver.assistant.retrieval.indexing import OLDEST_PGVECTOR
from chatserver.cli import production
from chatserver.cli.findings import Finding, judged
from chatserver.cli.redis_versions import is_new_enough
from chatserver.infra import revisions
from chatserver.infra.language_model import LanguageModelError
from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.settings import Settings, load
from chatserver.wiring.answers import language_model
from chatserver.wiring.documents import embedding_choice, reranker
from chatserver.wiring.files import open_store

CONNECT_S: Final = 5.0
# A clock that is off by more makes tokens and deadlines wrong.
SKEW_S: Final = 5.0
OLDEST_POSTGRESQL: Final = 15
CLUSTER: Final = ", a server of a Cluster"


def check(
    deploy: Annotated[bool, typer.Option("--deploy", help="Add the rules of production.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Check settings, database, roles, schema, Redis, storage. Exits 1 when one needs mending.

    Of a part that is well one line says so; of another, what is wrong and how to mend it.
    """
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
        _mail,
        _tracing,
        _clock,
    ]
    found = [Finding("settings", ok=True, detail=f"{settings.environment}, all present")]
    if deploy:
        found.extend(production.of_settings(settings))
        parts += [production.of_database, production.of_redis]
    for part in parts:
        found.extend(await part(settings))
    return found


async def _database(settings: Settings) -> list[Finding]:
    url = settings.database_url.get_secret_value()
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        mend = "Start PostgreSQL, check DATABASE_URL, then run `chatserver migrate`."
        return [Finding("database", ok=False, detail=f"can't connect ({error})", mend=mend)]
    try:
        version = str(await connection.fetchval("show server_version"))
        number = int(await connection.fetchval("show server_version_num")) // 10_000
        mend = f"Upgrade to PostgreSQL {OLDEST_POSTGRESQL} or newer."
        is_new = number >= OLDEST_POSTGRESQL
        found = [judged("database", f"PostgreSQL {version}", ok=is_new, mend=mend)]
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
    head = revisions.head()
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
    found = await _ping("queue", settings.queue_url, "QUEUE_REDIS_URL or REDIS_URL")
    if found.detail.endswith(CLUSTER):
        mend = "Let QUEUE_REDIS_URL name a Redis of its own: doorbells don't work in a Cluster."
        found = replace(found, ok=False, mend=mend)
    return [found]


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
        info = await client.info()
        # Whoever may not write here can't count or ring. Of a Cluster, another server may be asked
        # to; who may not, is told that first.
        with suppress(redis.exceptions.MovedError):
            await client.set(f"chatserver:check:{uuid4().hex}", 1, px=1)
    except redis.exceptions.ResponseError as error:
        mend = f"Let the user in {name} write: docs/operating.md lists what it needs."
        return Finding(part, ok=False, detail=f"refuses ({str(error)[:80]})", mend=mend)
    except (OSError, redis.exceptions.RedisError) as error:
        mend = f"Start Redis or check {name}; without it the server works, slower."
        return Finding(part, ok=False, detail=f"can't connect ({type(error).__name__})", mend=mend)
    finally:
        await client.aclose()
    product = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get("valkey_version") or info.get("redis_version"))
    kind = CLUSTER if info.get("cluster_enabled") else ""
    mend = "Upgrade to Redis 7.0 or Valkey 8, or newer."
    is_new = is_new_enough(product, version)
    return judged(part, f"version {version}{kind}", ok=is_new, mend=mend)


async def _mail(settings: Settings) -> list[Finding]:
    """Shake hands with the server of our own mails, where one is set; tenants have theirs."""
    url = settings.smtp_url
    if url is None:
        return []
    parts = urlsplit(url.get_secret_value())
    mend = "Check SMTP_URL, and that this machine may reach it."
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 25, ssl=parts.scheme == "smtps" or None
            )
            greeting = await reader.readline()
            writer.close()
    except (OSError, TimeoutError) as error:
        detail = str(error) or "no answer"
        return [Finding("mail", ok=False, detail=detail, mend=mend)]
    is_well = greeting.startswith(b"220")
    return [judged("mail", f"{parts.hostname} answers", ok=is_well, mend=mend)]


async def _tracing(settings: Settings) -> list[Finding]:
    """See whether the collector of traces listens, where one is set."""
    endpoint = settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        return []
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    mend = "Check OTEL_EXPORTER_OTLP_ENDPOINT: http://collector:4318, OTLP over HTTP."
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
            writer.close()
    except (OSError, TimeoutError) as error:
        return [Finding("traces", ok=False, detail=str(error) or "no answer", mend=mend)]
    return [Finding("traces", ok=True, detail=f"{parts.hostname}:{port} listens")]


async def _clock(settings: Settings, now: Clock = utc_now) -> list[Finding]:
    """Compare this machine's clock with PostgreSQL's, by which everything is decided."""
    try:
        connection = await asyncpg.connect(
            settings.database_url.get_secret_value(), timeout=CONNECT_S
        )
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return []  # said already
    try:
        before = now()
        theirs = await connection.fetchval("select clock_timestamp()")
        after = now()
    finally:
        await connection.close()
    # Whatever the question took is no difference.
    early, late = (before - theirs).total_seconds(), (theirs - after).total_seconds()
    skew_s = max(0.0, early, late)
    mend = "Let NTP keep the time on this machine and on PostgreSQL's."
    detail = f"within {skew_s:.1f} s of PostgreSQL's"
    return [judged("clock", detail, ok=skew_s <= SKEW_S, mend=mend)]
