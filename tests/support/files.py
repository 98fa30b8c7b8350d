"""Files of people: made, uploaded, completed."""

import base64
import hashlib
import io
from typing import Any, Self

import aiohttp
from PIL import Image

from chatserver.files.schemas import CreateFile, FileCreated, FileOut, FileRef
from chatserver.infra.storage_disk import LINK_PATH, DiskStore
from chatserver.kernel.principal import Principal
from tests.support.people import House


def checksum(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def announcement(content: bytes, content_type: str, name: str = "file") -> dict[str, Any]:
    return {
        "name": name,
        "content_type": content_type,
        "size": len(content),
        "sha256": checksum(content),
    }


def picture(width: int = 800, height: int = 400, kind: str = "PNG", **more: Any) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(made, kind, **more)
    return made.getvalue()


async def send(link: dict[str, Any], content: bytes) -> int:
    """Upload by a link, as a browser would; give the status."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            link["method"], link["url"], data=content, headers=link["headers"]
        ) as answer,
    ):
        return answer.status


class Shelf:
    """A house with a tenant and two people, ann and bob."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.files = house.container.files
        self.service = self.files.service

    async def __aenter__(self) -> Self:
        await self.house.start()
        self.master = await self.house.tenant()
        self.ann = await self.house.person(self.master, "ann")
        self.bob = await self.house.person(self.master, "bob")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.house.close()

    async def announced(
        self, who: Principal, content: bytes, content_type: str = "text/plain", name: str = "notes"
    ) -> FileCreated:
        return await self.service.create(
            who, CreateFile(**announcement(content, content_type, name))
        )

    async def uploaded(self, made: FileCreated, content: bytes) -> int:
        """Send a content by the link; give the status that the store answers."""
        store = self.files.store
        if isinstance(store, DiskStore):
            given = store.permitted(made.upload.url.removeprefix(LINK_PATH))
            assert given is not None
            await store.keep(given.key, content, sha256=None, replace=False)
            return 200
        return await send(made.upload.model_dump(), content)

    async def file(
        self,
        who: Principal,
        content: bytes = b"hello",
        content_type: str = "text/plain",
        **more: Any,
    ) -> FileOut:
        """Make a file that is ready."""
        made = await self.announced(who, content, content_type, **more)
        await self.uploaded(made, content)
        done = await self.service.complete(who, FileRef(file_id=made.file.id))
        assert done.state == "ready", done
        return done

    async def objects(self) -> list[str]:
        """Give the keys that are in the store, of those that any row names."""
        rows = await self.house.rows("select id, client_id from file")
        keys = [
            f"t/{row['client_id']}/{noun}/{row['id']}"
            for row in rows
            for noun in ("incoming", "files", "thumbnails")
        ]
        return [key for key in keys if await self.files.store.stat(key) is not None]
