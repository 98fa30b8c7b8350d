"""The rules that `chatserver check --deploy` adds: what is fine on a desk and not in production."""

import ipaddress
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import redis.asyncio
import redis.exceptions

from chatserver.cli.findings import Finding, judged
from chatserver.cli.redis_versions import is_patched, mended
from chatserver.settings import Settings

CONNECT_S: Final = 5.0
# What one process may hold open: the pools of `infra/database.py`, of retrieval and search, a
# leader, the health check. Workers need as many as web processes.
PER_PROCESS: Final = 10 + 4 + 4 + 4 + 4 + 2
SCHEDULER: Final = 4
STRONG: Final = 32
# Fewer different characters than any 32 random ones have.
VARIED: Final = 10
# Networks larger than these hold strangers: whom one believes may name any address as his.
LARGEST: Final = {4: 8, 6: 16}
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})


def of_settings(settings: Settings) -> list[Finding]:
    """Hold the settings against the rules."""
    url = settings.public_url
    return [
        judged(
            "environment",
            settings.environment,
            ok=settings.environment == "production",
            mend="Set ENVIRONMENT=production.",
        ),
        _secrets(settings),
        judged(
            "public address",
            url or "not set",
            ok=url is not None and url.startswith("https://"),
            mend="Set PUBLIC_URL to where callers reach the server, with https.",
        ),
        _proxies(settings),
        judged(
            "outbound requests",
            "private addresses are "
            + ("allowed" if settings.allow_private_addresses else "refused"),
            ok=not settings.allow_private_addresses,
            mend="Set ALLOW_PRIVATE_ADDRESSES=false: tenants could reach your own network.",
        ),
        judged(
            "rate limits",
            "off" if not settings.rate_limits_enabled else f"times {settings.limits_factor}",
            ok=settings.rate_limits_enabled and settings.limits_factor == 1,
            mend="Set RATE_LIMITS_ENABLED=true and LIMITS_FACTOR=1.",
        ),
        judged(
            "log format",
            settings.log_format,
            ok=settings.log_format == "json",
            mend="Set LOG_FORMAT=json for machines.",
        ),
        judged(
            "log level",
            settings.log_level,
            ok=settings.log_level != "debug",
            mend="Set LOG_LEVEL=info: debug is slow, and tells more than it should.",
        ),
        _transport(settings),
    ]


def _secrets(settings: Settings) -> Finding:
    values = {
        "OPERATOR_KEY": (settings.operator_key,),
        "KEY_PEPPER": settings.key_peppers,
        "SECRET_KEYS": settings.secret_keys,
    }
    weak = [
        name
        for name, several in values.items()
        if any(
            len(text := each.get_secret_value()) < STRONG or len(set(text)) < VARIED
            for each in several
        )
    ]
    every = [each.get_secret_value() for several in values.values() for each in several]
    if not weak and len(every) != len(set(every)):
        mend = "Make a value of its own for each: who learns one must not have the others."
        return Finding("secrets", ok=False, detail="two are the same", mend=mend)
    mend = f"Give {', '.join(weak)} 32 random characters: openssl rand -hex 32"
    return judged("secrets", "too weak" if weak else "strong", ok=not weak, mend=mend)


def _proxies(settings: Settings) -> Finding:
    mend = (
        "Set TRUSTED_PROXIES to the addresses of your balancer, no more: without it all callers"
        " look like one, with too many anybody may pretend to be anyone."
    )
    networks = [ipaddress.ip_network(each, strict=False) for each in settings.trusted_proxies]
    wide = [str(each) for each in networks if each.prefixlen < LARGEST[each.version]]
    detail = ", ".join(settings.trusted_proxies) or "none"
    return judged("trusted proxies", detail, ok=bool(networks) and not wide, mend=mend)


def _transport(settings: Settings) -> Finding:
    """Look whether secrets and messages travel in the clear to another machine."""
    clear = []
    for name, url in (
        ("REDIS_URL", settings.redis_url.get_secret_value()),
        ("QUEUE_REDIS_URL", settings.queue_url),
        ("S3_ENDPOINT_URL", settings.s3_endpoint_url or ""),
        ("OPENAI_BASE_URL", settings.openai_base_url or ""),
    ):
        parts = urlsplit(url)
        if parts.scheme in {"redis", "http"} and not _is_inside(parts.hostname or ""):
            clear.append(name)
    detail = f"in the clear: {', '.join(clear)}" if clear else "encrypted, or inside"
    mend = "Use rediss:// and https:// for what leaves your own network."
    return judged("transport", detail, ok=not clear, mend=mend)


def _is_inside(host: str) -> bool:
    """Tell a host of the own network: an address of one, or a name without a public suffix."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in _LOCAL or "." not in host or host.endswith((".internal", ".local", ".svc"))
    return address.is_private or address.is_loopback


async def of_database(settings: Settings) -> list[Finding]:
    """Ask PostgreSQL whether what it has acknowledged is kept, and whether all of us fit in."""
    url = settings.database_url.get_secret_value()
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return []  # said already
    try:
        shown = {
            name: await connection.fetchval(f"select current_setting('{name}')")
            for name in ("fsync", "synchronous_commit", "full_page_writes", "max_connections")
        }
        kept = await connection.fetchval(
            "select sum(setting::int) from pg_settings where name in"
            " ('superuser_reserved_connections', 'reserved_connections')"
        )
        is_encrypted = await connection.fetchval(
            "select coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false)"
            " or inet_server_addr() is null"
        )
    finally:
        await connection.close()
    host = urlsplit(url).hostname or ""
    return [
        _durability(shown),
        _places(settings, int(shown["max_connections"]) - int(kept or 0)),
        judged(
            "database transport",
            "encrypted, or inside" if is_encrypted or _is_inside(host) else "in the clear",
            ok=is_encrypted or _is_inside(host),
            mend="Add ?sslmode=require to DATABASE_URL, or verify-full with an authority.",
        ),
    ]


def _durability(shown: dict[str, Any]) -> Finding:
    # `local` waits for the own disk; `remote_apply` and `remote_write` for more than that.
    wrong = [
        name
        for name, good in (
            ("fsync", {"on"}),
            ("synchronous_commit", {"on", "local", "remote_write", "remote_apply"}),
            ("full_page_writes", {"on"}),
        )
        if shown[name] not in good
    ]
    detail = ", ".join(f"{name} = {shown[name]}" for name in wrong) or "commits are on disk"
    mend = (
        f"Set {', '.join(f'{name} = on' for name in wrong)} in PostgreSQL: what was acknowledged"
        " would be lost in a crash."
    )
    return judged("durability", detail, ok=not wrong, mend=mend)


def _places(settings: Settings, places: int) -> Finding:
    needed = 2 * settings.processes * PER_PROCESS + SCHEDULER
    mend = (
        f"Raise max_connections to at least {needed + 10}, lower PROCESSES, or put a pooler in"
        " front (session mode)."
    )
    detail = f"{places} for us; {settings.processes} web processes, as many workers need {needed}"
    return judged("database connections", detail, ok=places >= needed, mend=mend)


async def of_redis(settings: Settings) -> list[Finding]:
    """Ask both Redis whether they may forget what they were given, and who may speak to them."""
    found = []
    uses = {"redis": settings.redis_url.get_secret_value()}
    if settings.queue_url != uses["redis"]:
        uses["queue"] = settings.queue_url
    for part, url in uses.items():
        found += await _redis(part, url)
    return found


async def _redis(part: str, url: str) -> list[Finding]:
    client = redis.asyncio.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
    try:
        info = await client.info()
    except (OSError, redis.exceptions.RedisError):
        return [Finding(f"{part} scripts", ok=False, detail="not known", mend="Start Redis.")]
    finally:
        await client.aclose()
    policy = str(info.get("maxmemory_policy", "noeviction"))
    host, password = urlsplit(url).hostname or "", urlsplit(url).password
    product = "valkey" if "valkey_version" in info else "redis"
    version = str(info.get("valkey_version") or info.get("redis_version"))
    patched = is_patched(product, version)
    return [
        judged(
            f"{part} eviction",
            policy,
            ok=policy == "noeviction",
            mend="Set maxmemory-policy noeviction: limits, presence and doorbells would vanish.",
        ),
        judged(
            f"{part} access",
            "with a password" if password else "without a password",
            ok=bool(password) or host in _LOCAL,
            mend="Give Redis an ACL user and name it in the URL: who writes there rules limits.",
        ),
        judged(
            f"{part} scripts",
            f"{product} {version} "
            + ("is mended" if patched else "lets scripts run anything (CVE-2025-49844)"),
            ok=patched,
            mend=f"Upgrade to one of {mended(product)}, or newer.",
        ),
    ]
