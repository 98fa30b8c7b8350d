import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from chatserver.infra.storage import (
    CHUNK,
    ObjectChangedError,
    ObjectMissingError,
    ObjectStore,
    Upload,
    disposition,
)
from chatserver.infra.storage_disk import INCOMING, LinkSeal, Permission
from chatserver.infra.storage_s3 import PART, S3Store
from chatserver.kernel.errors import UnavailableError
from tests.support.object_stores import ACCESS, disk_store, lose, s3_server, s3_store

KEY = "t/0192/file"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(params=["s3", "disk"])
def store(request: pytest.FixtureRequest, s3: str, tmp_path: Path) -> Iterator[ObjectStore]:
    made: ObjectStore = s3_store(s3) if request.param == "s3" else disk_store(tmp_path)
    yield made
    made.close()


async def parts(*given: bytes) -> AsyncIterator[bytes]:
    for part in given:
        yield part


async def test_gives_back_what_was_put(store: ObjectStore) -> None:
    kept = await store.put(KEY, b"hello", content_type="text/plain")
    assert kept.size == 5
    assert await store.read(KEY) == b"hello"
    assert await store.stat(KEY) == kept
    assert [part async for part in store.stream(KEY)] == [b"hello"]


@pytest.mark.parametrize(
    ("start", "length", "given"), [(0, 2, b"he"), (3, 9, b"lo"), (9, 2, b""), (0, 0, b"")]
)
async def test_reads_a_part(store: ObjectStore, start: int, length: int, given: bytes) -> None:
    await store.put(KEY, b"hello", content_type="text/plain")
    assert await store.read(KEY, start=start, length=length) == given


async def test_keeps_an_empty_object(store: ObjectStore) -> None:
    assert (await store.put(KEY, b"", content_type="text/plain")).size == 0
    assert await store.read(KEY) == b""


async def test_puts_what_comes_in_pieces_without_holding_all_of_it(store: ObjectStore) -> None:
    given = [os.urandom(1_000_003) for _ in range(20)]
    assert sum(map(len, given)) > 2 * PART
    kept = await store.put(KEY, parts(*given), content_type="video/mp4")
    digest, longest, size = hashlib.sha256(), 0, 0
    async for part in store.stream(KEY):
        digest.update(part)
        longest, size = max(longest, len(part)), size + len(part)
    assert digest.digest() == hashlib.sha256(b"".join(given)).digest()
    assert size == kept.size == sum(map(len, given))
    assert longest <= CHUNK


@pytest.mark.parametrize("size", [10, PART + 1])
async def test_keeps_the_old_object_when_a_new_one_breaks_off(
    store: ObjectStore, size: int
) -> None:
    await store.put(KEY, b"old", content_type="text/plain")

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * size
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.put(KEY, breaks(), content_type="text/plain")
    assert await store.read(KEY) == b"old"
    assert await store.tidy(older_than=timedelta(0)) == 0


async def test_replaces_an_object_and_tells_by_its_etag(store: ObjectStore) -> None:
    first = await store.put(KEY, b"one", content_type="text/plain")
    second = await store.put(KEY, b"two", content_type="text/plain")
    assert first.etag != second.etag
    assert await store.read(KEY) == b"two"


async def test_misses_what_is_not_there(store: ObjectStore) -> None:
    assert await store.stat(KEY) is None
    with pytest.raises(ObjectMissingError):
        await store.read(KEY)
    with pytest.raises(ObjectMissingError):
        await anext(store.stream(KEY))
    with pytest.raises(ObjectMissingError):
        await store.move(KEY, "t/other", etag="x")


async def test_deletes_any_number_also_what_is_not_there(store: ObjectStore) -> None:
    await store.put(KEY, b"hello", content_type="text/plain")
    await store.delete([KEY, *(f"t/none/{n}" for n in range(1100))])
    assert await store.stat(KEY) is None
    await store.delete([])


async def test_lists_all_objects_of_ours_and_nothing_else(store: ObjectStore) -> None:
    assert [key async for key in store.all_keys()] == []
    names = (
        {f"t/many/{n:04}" for n in range(1003)} if isinstance(store, S3Store) else {"t/a", "t/b/c"}
    )
    for name in (*names, "other/thing"):
        await store.put(name, b"x", content_type="text/plain")
    assert {key async for key in store.all_keys()} == names


async def test_moves_only_what_was_looked_at(store: ObjectStore) -> None:
    seen = await store.put(KEY, b"harmless", content_type="text/plain")
    changed = await store.put(KEY, b"swapped", content_type="text/plain")
    with pytest.raises(ObjectChangedError):
        await store.move(KEY, "t/clean", etag=seen.etag)
    assert await store.stat("t/clean") is None
    await store.move(KEY, "t/clean", etag=changed.etag)
    assert await store.stat(KEY) is None
    assert await store.read("t/clean") == b"swapped"


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "t/../../x", "t//x", "t/.x", "t/x/", "t/%2e%2e/x", "t/ä", "t/x\0",
     "t/x\n", "t\\x", ".incoming/x", "t/" + "x" * 129, "/".join("x" * 300)],
)  # fmt: skip
async def test_takes_no_key_that_means_something_else(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await store.put(key, b"", content_type="text/plain")
    with pytest.raises(ValueError, match="key"):
        await store.read(key)


async def test_answers_many_at_once(store: ObjectStore) -> None:
    await asyncio.gather(
        *(store.put(f"t/many/{n}", b"%d" % n, content_type="text/plain") for n in range(40))
    )
    found = await asyncio.gather(*(store.read(f"t/many/{n}") for n in range(40)))
    assert found == [b"%d" % n for n in range(40)]


async def test_links_name_what_they_allow(store: ObjectStore) -> None:
    upload = Upload(size=5, content_type="text/plain", sha256=hashlib.sha256(b"hello").digest())
    link = await store.upload_link(KEY, upload, life=timedelta(seconds=60))
    assert link.method == "PUT"
    assert link.headers["content-type"] == "text/plain"
    assert "secret" not in link.url
    assert 50 < (link.expires_at - datetime.now(UTC)).total_seconds() <= 60


async def test_is_reachable(store: ObjectStore) -> None:
    await store.ping()


class TestS3:
    async def test_signs_size_type_checksum_and_that_nothing_is_replaced(self, s3: str) -> None:
        store = s3_store(s3)
        content = b"hello"
        upload = Upload(
            size=len(content), content_type="text/plain", sha256=hashlib.sha256(content).digest()
        )
        link = await store.upload_link(KEY, upload)
        signed = link.url.split("X-Amz-SignedHeaders=")[1].split("&")[0].lower().split("%3b")
        assert set(signed) == {
            "content-length", "content-type", "host", "if-none-match", "x-amz-checksum-sha256",
        }  # fmt: skip
        async with aiohttp.ClientSession() as session:
            async with session.put(link.url, data=content, headers=link.headers) as answer:
                assert answer.status == 200
            async with session.put(link.url, data=content, headers=link.headers) as answer:
                assert answer.status == 412
        store.close()

    async def test_is_downloaded_under_its_name_and_type(self, s3: str) -> None:
        store = s3_store(s3)
        await store.put(KEY, b"<script>", content_type="text/html")
        link = await store.download_link(
            KEY, name="brief für dich.html", content_type="application/octet-stream"
        )
        async with aiohttp.ClientSession() as session, session.get(link.url) as answer:
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.content_disposition is not None
            assert answer.content_disposition.type == "attachment"
            assert answer.content_disposition.filename == "brief für dich.html"
            assert await answer.read() == b"<script>"
        store.close()

    async def test_signs_for_the_address_that_callers_know(self, s3: str) -> None:
        store = S3Store(
            bucket="files", endpoint_url=s3, public_url="https://files.example", **ACCESS
        )
        link = await store.download_link(KEY, name="x", content_type="text/plain")
        assert link.url.startswith("https://files.example/files/t/0192/file?")
        store.close()

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", None])
    async def test_is_unavailable_without_a_server_or_a_bucket(
        self, s3: str, url: str | None
    ) -> None:
        store = S3Store(bucket="nobody-made-it", endpoint_url=url or s3, **ACCESS)
        with pytest.raises(UnavailableError) as said:
            await store.ping()
        assert "127.0.0.1" not in said.value.message
        with pytest.raises(UnavailableError):
            await store.put(KEY, b"x", content_type="text/plain")
        store.close()


class TestDisk:
    async def test_is_unavailable_without_its_disk_and_heals(self, tmp_path: Path) -> None:
        directory = tmp_path / "files"
        store = disk_store(directory)
        await store.put(KEY, b"x", content_type="text/plain")
        lose(directory)
        with pytest.raises(UnavailableError):
            await store.put(KEY, b"x", content_type="text/plain")
        with pytest.raises(UnavailableError):
            await store.ping()
        directory.unlink()
        await store.ping()
        await store.put(KEY, b"x", content_type="text/plain")
        store.close()

    async def test_follows_no_link_out_of_its_directory(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("hidden")
        store = disk_store(tmp_path / "files")
        await store.put("t/x/a", b"", content_type="text/plain")
        (tmp_path / "files/t/x/b").symlink_to(secret)
        with pytest.raises(UnavailableError):
            await store.read("t/x/b")
        store.close()

    async def test_keeps_only_content_of_the_checksum_and_replaces_nothing(
        self, tmp_path: Path
    ) -> None:
        store = disk_store(tmp_path)
        good = hashlib.sha256(b"good").digest()
        with pytest.raises(ObjectChangedError):
            await store.keep(KEY, b"evil", sha256=good, replace=False)
        assert await store.stat(KEY) is None
        await store.keep(KEY, b"good", sha256=good, replace=False)
        with pytest.raises(ObjectChangedError):
            await store.keep(KEY, b"good", sha256=good, replace=False)
        assert list((tmp_path / INCOMING).iterdir()) == []
        store.close()

    async def test_sweeps_what_a_killed_process_was_writing(self, tmp_path: Path) -> None:
        store = disk_store(tmp_path)
        await store.ping()
        (tmp_path / INCOMING / "half").write_bytes(b"ha")
        assert await store.tidy(older_than=timedelta(hours=1)) == 0
        assert await store.tidy(older_than=timedelta(seconds=-1)) == 1
        store.close()

    async def test_its_files_are_its_own(self, tmp_path: Path) -> None:
        store = disk_store(tmp_path / "files")
        await store.put(KEY, b"x", content_type="text/plain")
        assert (tmp_path / "files" / KEY).stat().st_mode & 0o777 == 0o600
        store.close()


class TestLinks:
    given = Permission(
        method="PUT", key=KEY, content_type="text/plain", expires_at=NOW, size=5, sha256=b"\1" * 32
    )

    def test_say_what_was_sealed_until_they_expire(self) -> None:
        seal = LinkSeal(["new" * 8, "old" * 8])
        token = seal.seal(self.given)
        assert seal.open(token, NOW - timedelta(seconds=1)) == self.given
        assert seal.open(token, NOW) is None

    def test_hold_over_a_rotation_of_keys(self) -> None:
        token = LinkSeal(["old" * 8]).seal(self.given)
        before = NOW - timedelta(seconds=1)
        assert LinkSeal(["new" * 8, "old" * 8]).open(token, before) == self.given
        assert LinkSeal(["new" * 8]).open(token, before) is None

    def test_open_no_other_token(self) -> None:
        seal = LinkSeal(["k" * 32])
        token = seal.seal(self.given)
        content, _, mac = token.partition(".")
        others = ["", ".", token[:-2], f"x{token}", content, f"{token}ä", token.upper(), f".{mac}"]
        for other in others:
            assert seal.open(other, NOW - timedelta(seconds=1)) is None, other


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a b.txt", "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
        ('x"\r\ny: z', "attachment; filename=\"x___y_ z\"; filename*=UTF-8''x%22%0D%0Ay%3A%20z"),
        ("..", "attachment; filename=\"file\"; filename*=UTF-8''.."),
    ],
)
def test_writes_names_that_break_no_header(name: str, written: str) -> None:
    assert disposition(name) == written
