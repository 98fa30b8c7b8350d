"""Objects in S3, R2 or whatever else speaks S3; the endpoint is the operator's own."""

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from chatserver.infra.storage import (
    CHUNK,
    LINK_LIFE,
    MOST_KEYS_PER_DELETE,
    PREFIX,
    Content,
    Link,
    ObjectChangedError,
    ObjectMissingError,
    Stat,
    Threads,
    Upload,
    check_key,
    disposition,
    pieces,
)
from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import UnavailableError

Result = TypeVar("Result")

# An operation of callers has 4 s in all.
CONNECT_S: Final = 2.0
READ_S: Final = 10.0
ATTEMPTS: Final = 2
# S3 takes no smaller part of a large upload than 5 MiB.
PART: Final = 8 * 2**20
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_CHANGED: Final = frozenset({"412", "PreconditionFailed"})


class S3Store:
    """Every call runs in a thread, with timeouts and one more try."""

    def __init__(
        self,
        *,
        bucket: str,
        access_key_id: str,
        secret_access_key: str,
        endpoint_url: str | None = None,
        public_url: str | None = None,
        region: str = "auto",
        clock: Clock = utc_now,
    ) -> None:
        def client(url: str | None) -> Any:  # noqa: ANN401 - boto3 has no types
            return boto3.client(
                "s3",
                endpoint_url=url,
                region_name=region,
                aws_access_key_id=access_key_id,
                aws_secret_access_key=secret_access_key,
                config=Config(
                    signature_version="s3v4",
                    connect_timeout=CONNECT_S,
                    read_timeout=READ_S,
                    retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                    max_pool_connections=16,
                    # Not every S3 knows the newer trailing checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    # A bucket as a host name needs DNS that private endpoints don't have.
                    s3={"addressing_style": "auto" if url is None else "path"},
                ),
            )

        self._bucket = bucket
        self._client = client(endpoint_url)
        # Callers may reach the store under another address than we do.
        self._signing = self._client if public_url is None else client(public_url)
        self._threads = Threads("s3")
        self._clock = clock

    async def put(self, key: str, content: Content, *, content_type: str) -> Stat:
        """Store an object; what is longer than 8 MiB goes in parts, one of them in memory."""
        place = self._place(key)
        parts = pieces(content, PART)
        first = await anext(parts, b"")
        if len(first) < PART:
            kept = await self._run(
                lambda: self._client.put_object(**place, Body=first, ContentType=content_type)
            )
            return Stat(len(first), kept["ETag"])
        begun = await self._run(
            lambda: self._client.create_multipart_upload(**place, ContentType=content_type)
        )
        upload = {**place, "UploadId": begun["UploadId"]}
        try:
            return await self._put_parts(upload, first, parts)
        except BaseException:
            await self._run(lambda: self._client.abort_multipart_upload(**upload))
            raise

    async def _put_parts(
        self, upload: dict[str, str], first: bytes, rest: AsyncIterator[bytes]
    ) -> Stat:
        size = 0
        done: list[dict[str, Any]] = []

        async def send(part: bytes) -> None:
            number = len(done) + 1
            kept = await self._run(
                lambda: self._client.upload_part(**upload, PartNumber=number, Body=part)
            )
            done.append({"PartNumber": number, "ETag": kept["ETag"]})

        await send(first)
        size += len(first)
        async for part in rest:
            await send(part)
            size += len(part)
        whole = await self._run(
            lambda: self._client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": done}
            )
        )
        return Stat(size, whole["ETag"])

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        asked = self._place(key)
        if length == 0:
            return b""
        if start or length is not None:
            asked["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"

        def fetch() -> bytes:
            try:
                with self._client.get_object(**asked)["Body"] as body:
                    return bytes(body.read())
            except ClientError as error:
                # There is an object, and it ends before `start`.
                if _code(error) in {"InvalidRange", "416"}:
                    return b""
                raise

        return await self._run(fetch)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        place = self._place(key)
        answer = await self._run(lambda: self._client.get_object(**place))
        body = answer["Body"]
        try:
            while chunk := await self._run(lambda: body.read(CHUNK)):
                yield chunk
        finally:
            body.close()

    async def stat(self, key: str) -> Stat | None:
        place = self._place(key)
        try:
            found = await self._run(lambda: self._client.head_object(**place))
        except ObjectMissingError:
            return None
        return Stat(found["ContentLength"], found["ETag"])

    async def move(self, source: str, target: str, *, etag: str) -> None:
        old, new = self._place(source), self._place(target)
        found = await self.stat(source)
        if found is None:
            raise ObjectMissingError
        if found.etag != etag:
            raise ObjectChangedError
        # Said again in the request itself: between the two it may change.
        await self._run(
            lambda: self._client.copy_object(**new, CopySource=old, CopySourceIfMatch=etag)
        )
        await self.delete([source])

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), MOST_KEYS_PER_DELETE):
            named = [{"Key": check_key(key)} for key in keys[start : start + MOST_KEYS_PER_DELETE]]
            answer = await self._run(
                lambda named=named: self._client.delete_objects(  # type: ignore[misc]
                    Bucket=self._bucket, Delete={"Objects": named, "Quiet": True}
                )
            )
            if answer.get("Errors"):
                raise UnavailableError("The object store did not delete everything.")

    async def upload_link(self, key: str, upload: Upload, *, life: timedelta = LINK_LIFE) -> Link:
        """Sign a PUT: size, type, checksum and "only if there is none" are part of it."""
        checksum = base64.b64encode(upload.sha256).decode()
        asked = {
            **self._place(key),
            "ContentLength": upload.size,
            "ContentType": upload.content_type,
            "ChecksumSHA256": checksum,
            "IfNoneMatch": "*",
        }
        # Whoever sends a body sets its length anyway, and browsers let nobody else do it.
        headers = {
            "content-type": upload.content_type,
            "x-amz-checksum-sha256": checksum,
            "if-none-match": "*",
        }
        return await self._signed("put_object", "PUT", asked, headers, life)

    async def download_link(
        self, key: str, *, name: str, content_type: str, life: timedelta = LINK_LIFE
    ) -> Link:
        asked = {
            **self._place(key),
            "ResponseContentType": content_type,
            "ResponseContentDisposition": disposition(name),
            "ResponseCacheControl": "private, no-store",
        }
        return await self._signed("get_object", "GET", asked, {}, life)

    async def all_keys(self) -> AsyncIterator[str]:
        asked = {"Bucket": self._bucket, "Prefix": PREFIX}
        while True:
            page = await self._run(lambda: self._client.list_objects_v2(**asked))
            for each in page.get("Contents", ()):
                yield each["Key"]
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    async def tidy(self, *, older_than: timedelta) -> int:
        before = self._clock() - older_than
        listed = await self._run(
            lambda: self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=PREFIX)
        )
        old = [each for each in listed.get("Uploads", ()) if each["Initiated"] < before]
        for each in old:
            place = {"Bucket": self._bucket, "Key": each["Key"], "UploadId": each["UploadId"]}
            await self._run(
                lambda place=place: self._client.abort_multipart_upload(**place)  # type: ignore[misc]
            )
        return len(old)

    async def ping(self) -> None:
        try:
            await self._run(lambda: self._client.head_bucket(Bucket=self._bucket))
        except ObjectMissingError as error:
            raise UnavailableError("The object store has no such bucket.") from error

    def close(self) -> None:
        self._threads.close()
        self._client.close()
        if self._signing is not self._client:
            self._signing.close()

    def _place(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": check_key(key)}

    async def _signed(
        self,
        call: str,
        method: str,
        asked: dict[str, Any],
        headers: dict[str, str],
        life: timedelta,
    ) -> Link:
        seconds = int(life.total_seconds())
        expires_at = self._clock() + life
        url: str = await self._run(
            lambda: self._signing.generate_presigned_url(
                call, Params=asked, ExpiresIn=seconds, HttpMethod=method
            )
        )
        return Link(method, url, headers, expires_at)

    async def _run(self, call: Callable[[], Result]) -> Result:
        try:
            return await self._threads.run(call)
        except ClientError as error:
            code = _code(error)
            if code in _MISSING:
                raise ObjectMissingError from error
            if code in _CHANGED:
                raise ObjectChangedError from error
            raise _away(error) from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise _away(error) from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _away(error: Exception) -> UnavailableError:
    # Also for wrong credentials and a bucket that isn't there: callers can't mend those, and
    # `chatserver check` and the log name them.
    return UnavailableError(f"The object store does not answer ({type(error).__name__}).")
