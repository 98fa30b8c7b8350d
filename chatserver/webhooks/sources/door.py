"""The way in for vendors: `POST /webhooks/{client_slug}/{event}`, outside of the API's prefix.

Nobody logs in here and no body is parsed before it is known to be signed.
"""

from collections.abc import Callable, Sequence
from typing import Final

import orjson
from aiohttp import hdrs, web

from chatserver.infra.audit import ADDRESS
from chatserver.kernel.errors import RateLimitedError
from chatserver.transport.answers import json_answer
from chatserver.transport.bodies import read_bytes
from chatserver.transport.credentials import Network, caller_of
from chatserver.transport.errors import MediaTypeError
from chatserver.transport.limits import network_of
from chatserver.webhooks.sources.claims import Incoming
from chatserver.webhooks.sources.errors import InboundRefusedError, InboundTooLateError
from chatserver.webhooks.sources.reception import Reception, Taken

PATH: Final = "/webhooks/{client_slug}/{event}"
MAX_BODY: Final = 1024 * 1024


_REFUSALS: Final[dict[type[Exception], str]] = {
    InboundRefusedError: "refused",
    InboundTooLateError: "too_late",
    RateLimitedError: "rate_limited",
}


class InboundDoor:
    def __init__(
        self,
        reception: Reception,
        *,
        public_url: str | None,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self._reception = reception
        self._public_url = (public_url or "").rstrip("/")
        self._trusted_proxies = trusted_proxies
        # Told what became of each request; for metrics.
        self.answered: Callable[[str], None] = lambda _: None

    def attach(self, app: web.Application) -> None:
        app.router.add_post(PATH, self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        """Take a request; 200 says that it is committed, now or before (`duplicate`)."""
        address = caller_of(request, self._trusted_proxies)
        ADDRESS.set(address)
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            # What is signed are the bytes of the body: whether packed or not is each vendor's.
            raise MediaTypeError("Send the body uncompressed.")
        body = await read_bytes(request, most=MAX_BODY)
        try:
            taken = await self._reception.take(
                request.match_info["client_slug"],
                request.match_info["event"],
                Incoming(_headers(request), body, self._url(request)),
                sender=network_of(address),
            )
        except Exception as error:
            self.answered(_REFUSALS.get(type(error), "failed"))
            raise
        self.answered(_outcome(taken))
        if taken.challenge is not None:
            return json_answer(orjson.dumps({"challenge": taken.challenge}))
        said = {"id": None if taken.id is None else str(taken.id), "duplicate": taken.duplicate}
        return json_answer(orjson.dumps(said))

    def _url(self, request: web.Request) -> str:
        # As text: what is signed is how the vendor wrote it, not what it means.
        if self._public_url:
            return self._public_url + request.raw_path
        return f"{request.scheme}://{request.host}{request.raw_path}"


def _outcome(taken: Taken) -> str:
    if taken.challenge is not None:
        return "challenge"
    return "duplicate" if taken.duplicate else "kept"


def _headers(request: web.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found
