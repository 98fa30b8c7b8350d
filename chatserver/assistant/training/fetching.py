"""Brings what stands at an address into the store; goes to public places alone."""

import hashlib
from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import urljoin

from chatserver.assistant.documents.models import Document
from chatserver.assistant.reading.shapes import Refused
from chatserver.assistant.training.trainer import Fetched
from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.http_client import OutboundError, Reply
from chatserver.infra.storage import ObjectStore
from chatserver.kernel.ids import uuid7

LARGEST: Final = 10 * 2**20
MOST_REDIRECTS: Final = 5
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Client(Protocol):
    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        max_body: int,
        redirects: bool,
    ) -> Reply: ...


class Fetcher:
    def __init__(self, client: Client, store: ObjectStore) -> None:
        self._client = client
        self._store = store

    async def fetch(self, document: Document) -> Fetched:
        """Fetch an address unless it says that nothing has changed.

        Raises:
            Refused: `address_refused`, `unreachable`, `not_found`, `too_large` or `http_error`.
        """
        assert document.url is not None  # noqa: S101 - it is an address
        headers = {"Accept": "text/html, application/pdf, text/*;q=0.9, */*;q=0.5"}
        if document.etag is not None and document.storage_key is not None:
            headers["If-None-Match"] = document.etag
        reply = await self._follow(document.url, headers)
        if reply.status == HTTPStatus.NOT_MODIFIED:
            return Fetched(is_new=False)
        if reply.status in _GONE:
            raise Refused("not_found")
        if reply.status != HTTPStatus.OK:
            raise Refused("http_error")
        sha256 = hashlib.sha256(reply.body).digest()
        if sha256 == document.sha256 and document.storage_key is not None:
            return Fetched(is_new=False)
        key = f"t/{document.client_id}/documents/{uuid7()}"
        await self._store.put(key, reply.body, content_type="application/octet-stream")
        etag = reply.headers.get("ETag", "")
        return Fetched(
            is_new=True,
            storage_key=key,
            size=len(reply.body),
            sha256=sha256,
            etag=etag if etag.isprintable() and 0 < len(etag) <= 256 else None,  # noqa: PLR2004
        )

    async def _follow(self, url: str, headers: dict[str, str]) -> Reply:
        for _ in range(MOST_REDIRECTS + 1):
            try:
                # Each hop is judged like the first: a public page may point inwards.
                reply = await self._client.fetch(
                    "GET", url, headers=headers, max_body=LARGEST, redirects=True
                )
            except AddressRefusedError as error:
                raise Refused("address_refused") from error
            except OutboundError as error:
                raise Refused("too_large" if "larger" in str(error) else "unreachable") from error
            if reply.status not in _REDIRECTS:
                return reply
            url = urljoin(url, reply.headers.get("Location", ""))
        raise Refused("unreachable")
