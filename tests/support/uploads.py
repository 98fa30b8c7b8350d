"""Uploads over REST, as an application makes them."""

import base64
import hashlib
from typing import Any

from tests.support.clients import Answer, Api


def announced(content: bytes, content_type: str, name: str) -> dict[str, Any]:
    """Give the body that announces a file."""
    return {
        "name": name,
        "content_type": content_type,
        "size": len(content),
        "sha256": base64.b64encode(hashlib.sha256(content).digest()).decode(),
    }


async def send(api: Api, link: dict[str, Any], content: bytes) -> Answer:
    """Send a content by a link to the server's own store."""
    return await api.as_(None).send(
        link["method"],
        link["url"],
        raw=content,
        headers={name.title(): value for name, value in link["headers"].items()},
    )


async def upload(
    api: Api, name: str, content: bytes = b"hello", content_type: str = "text/plain"
) -> str:
    """Upload a file and complete it; give its id."""
    made = (await api.post("/files", announced(content, content_type, name))).ok()
    assert (await send(api, made["upload"], content)).status == 200
    file_id: str = made["file"]["id"]
    done = (await api.post(f"/files/{file_id}/complete")).ok()
    assert done["state"] == "ready", done
    return file_id
