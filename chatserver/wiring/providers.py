"""How providers are built, and who speaks to what stands behind them."""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from chatserver.deliveries.targets import TargetService
from chatserver.infra.addresses import Reach
from chatserver.infra.mail import Outcome
from chatserver.infra.mailgun import Mailgun, MailgunConfig
from chatserver.infra.smtp import SmtpConfig, SmtpPool
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.providers.repository import ProviderRepository
from chatserver.providers.service import ProviderChecks, ProviderService
from chatserver.wiring.core import Core

# An operation may take 4 s.
CHECK_S: Final = 3.0


class Providers:
    """`targets` builds within a transaction."""

    def __init__(self, core: Core, *, targets: Callable[[UnitOfWork], TargetService]) -> None:
        self._core = core
        self._targets = targets
        public = urlsplit(core.settings.public_url or "").hostname
        self.smtp = SmtpPool(
            Reach(private=core.settings.allow_private_addresses),
            local_hostname=public or "localhost",
        )
        self.mailgun = Mailgun(core.outside)
        self.open_providers = core.open(self.providers)
        self.checks = ProviderChecks(
            open_providers=self.open_providers, check=self.check, clock=utc_now
        )

    def providers(self, work: UnitOfWork) -> ProviderService:
        """Build the service within somebody's unit of work."""
        return ProviderService(
            providers=ProviderRepository(work.session),
            targets=self._targets(work),
            box=self._core.box,
            recorder=work,
        )

    async def check(self, kind: str, config: dict[str, Any]) -> Outcome:
        """Connect and log in, for at most `CHECK_S` seconds."""
        try:
            async with asyncio.timeout(CHECK_S):
                if kind == "smtp":
                    return await self.smtp.verify(smtp_config(config), config["from"])
                if kind == "mailgun":
                    return await self.mailgun.verify(mailgun_config(config))
        except TimeoutError:
            text = f"It did not answer within {CHECK_S:g} s."
            return Outcome(kind="retryable", phase="connect", text=text)
        return Outcome(kind="accepted", phase="done")

    async def stop(self) -> None:
        """Let the connections go."""
        await self.smtp.close()


def smtp_config(config: dict[str, Any]) -> SmtpConfig:
    return SmtpConfig(
        host=config["host"],
        port=config["port"],
        tls=config["tls"],
        username=config["username"],
        password=config["password"],
    )


def mailgun_config(config: dict[str, Any]) -> MailgunConfig:
    return MailgunConfig(
        domain=config["domain"],
        api_key=config["api_key"],
        region=config["region"],
        base_url=config["base_url"],
    )
