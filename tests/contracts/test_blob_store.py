"""What every BlobStore promises: content under its address, ranges, and putting twice is no error."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from obstore.store import MemoryStore

from annotomy.blobs.choose import blob_store
from annotomy.blobs.filesystem import FilesystemBlobStore
from annotomy.blobs.objects import PART_BYTES, ObjectBlobStore
from annotomy.ports import BlobStore
from annotomy.settings import Settings
from tests.support.s3 import s3_server

LARGE = bytes(range(256)) * (PART_BYTES // 256 + 500)


@pytest.fixture(scope="module")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(params=["files", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "files":
        return FilesystemBlobStore(tmp_path / "blobs")
    if request.param == "memory":
        return ObjectBlobStore(MemoryStore())
    return ObjectBlobStore.from_url(request.getfixturevalue("s3_url"))


@pytest.mark.parametrize("data", [b"", b"x", b"header" * 1000, LARGE], ids=["empty", "one", "small", "large"])
async def test_what_was_put_is_read_under_its_address(store: BlobStore, data: bytes) -> None:
    stat = await store.put(data)
    assert (stat.address, stat.size) == (blake3(data).hexdigest(), len(data))
    assert await store.put(data) == stat
    assert await store.stat(stat.address) == stat
    assert await store.read(stat.address) == data
    assert b"".join([piece async for piece in store.stream(stat.address)]) == data


async def test_a_finished_file_moves_in(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "finished"
    path.write_bytes(LARGE)
    first = await store.put_file(path)
    assert not path.exists()
    path.write_bytes(LARGE)
    assert await store.put_file(path) == first
    assert not path.exists()
    assert await store.read(first.address, 7, 20) == LARGE[7:27]


async def test_ranges_are_what_they_say(store: BlobStore) -> None:
    data = bytes(range(200))
    address = (await store.put(data)).address
    assert await store.read(address, 10, 5) == data[10:15]
    assert await store.read(address, 190) == data[190:]
    assert await store.read(address, 0, 0) == b""
    assert b"".join([piece async for piece in store.stream(address, 3, 90)]) == data[3:93]
    assert b"".join([piece async for piece in store.stream(address, 150)]) == data[150:]


async def test_what_is_not_there_is_said(store: BlobStore) -> None:
    absent = "0" * 64
    assert await store.stat(absent) is None
    with pytest.raises(KeyError):
        await store.read(absent, 0, 4)
    with pytest.raises(KeyError):
        [piece async for piece in store.stream(absent)]
    with pytest.raises(KeyError):
        await store.read("../../etc/passwd")
    await store.delete(absent)


async def test_what_was_deleted_is_gone(store: BlobStore) -> None:
    address = (await store.put(b"to be deleted")).address
    await store.delete(address)
    assert await store.stat(address) is None


def test_the_url_chooses_the_store(tmp_path: Path) -> None:
    def chosen(url: str) -> BlobStore:
        return blob_store(Settings.from_environment({"ANNOTOMY_DATA": str(tmp_path), "ANNOTOMY_BLOBS_URL": url}))

    assert isinstance(chosen(""), FilesystemBlobStore)
    assert isinstance(chosen(f"file://{tmp_path}/elsewhere"), FilesystemBlobStore)
    assert isinstance(chosen("s3://bucket/prefix?region=eu-central-1"), ObjectBlobStore)
    with pytest.raises(ValueError, match="ANNOTOMY_BLOBS_URL"):
        chosen("ftp://host/path")
