"""Real object stores: a directory, and moto's S3 over HTTP."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import boto3
from moto.server import ThreadedMotoServer

from chatserver.infra.storage_disk import DiskStore, LinkSeal
from chatserver.infra.storage_s3 import S3Store

ACCESS: Final[dict[str, Any]] = {
    "access_key_id": "test",
    "secret_access_key": "test-secret",
    "region": "us-east-1",
}


@contextmanager
def s3_server() -> Iterator[str]:
    """Run an S3 on a port of its own; give its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def bucket_at(url: str) -> str:
    """Make a bucket of one's own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name=ACCESS["region"],
        aws_access_key_id=ACCESS["access_key_id"],
        aws_secret_access_key=ACCESS["secret_access_key"],
    )
    client.create_bucket(Bucket=name)
    client.close()
    return name


def s3_store(url: str) -> S3Store:
    return S3Store(bucket=bucket_at(url), endpoint_url=url, **ACCESS)


def disk_store(directory: Path, *, public_url: str = "") -> DiskStore:
    return DiskStore(directory, seal=LinkSeal(["k" * 32]), public_url=public_url)


def lose(directory: Path) -> None:
    """Take the disk away: nothing can be written or read there any more."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.write_bytes(b"")


def restore(directory: Path) -> None:
    """Give the disk back, empty."""
    directory.unlink()
