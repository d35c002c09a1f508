"""Blobs in an object store (S3 and what speaks it, Google Cloud Storage, Azure), through obstore.

An object's key is its content's address, so that writing it twice writes the same bytes: no lock and no conditional write
is needed for correctness. A put is acknowledged by the service when the object is durable there.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import obstore
from blake3 import blake3
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore, from_url

from annotomy.ports import BlobStat

PIECE_BYTES = 4 << 20
PART_BYTES = 16 << 20
"""Larger content goes up in parts of this size, several at once."""
REQUEST_TIMEOUT = "60s"
RETRIES = 5


class ObjectBlobStore:
    """A BlobStore over one bucket, or a prefix in it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def from_url(cls, url: str) -> "ObjectBlobStore":
        """`s3://bucket/prefix?endpoint=http://host:port&region=eu-1`. Credentials come from the environment (AWS_...).

        Raises ValueError for a URL that no store understands.
        """
        parts = urlsplit(url)
        config: dict[str, str] = dict(parse_qsl(parts.query))
        config.pop("public_endpoint", None)  # for the addresses that clients get (staging.py)
        plain: Any = urlunsplit(parts._replace(query=""))
        options: Any = {"timeout": REQUEST_TIMEOUT}
        if config.get("endpoint", "").startswith("http://"):
            options["allow_http"] = True
        retry: Any = {"max_retries": RETRIES}
        try:
            return cls(from_url(plain, config=_named(config), client_options=options, retry_config=retry))
        except obstore.exceptions.BaseError as error:
            raise ValueError(f"ANNOTOMY_BLOBS_URL is not understood: {type(error).__name__}") from error

    async def put(self, data: bytes) -> BlobStat:
        stat = BlobStat(await asyncio.to_thread(lambda: blake3(data).hexdigest()), len(data))
        if len(data) <= PART_BYTES:
            await self._create(stat, data)
        elif not await self._holds(stat):
            await obstore.put_async(self._store, _key(stat.address), data, use_multipart=True, chunk_size=PART_BYTES)
        return stat

    async def put_file(self, path: Path) -> BlobStat:
        digest = await asyncio.to_thread(lambda: blake3().update_mmap(path).hexdigest())
        stat = BlobStat(digest, path.stat().st_size)
        if not await self._holds(stat):
            await obstore.put_async(self._store, _key(stat.address), path, chunk_size=PART_BYTES)
        path.unlink()
        return stat

    async def read(self, address: str, start: int = 0, length: int | None = None) -> bytes:
        if length is None:
            held = await self.stat(address)
            if held is None:
                raise KeyError(address)
            length = max(0, held.size - start)
        if length == 0:
            return b""
        try:
            return bytes(await obstore.get_range_async(self._store, _key(address), start=start, length=length))
        except FileNotFoundError:
            raise KeyError(address) from None

    async def stream(self, address: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        if length == 0:
            return
        options: Any = {}
        if length is not None:
            options = {"range": (start, start + length)}
        elif start:
            options = {"range": {"offset": start}}
        try:
            found = await obstore.get_async(self._store, _key(address), options=options)
        except FileNotFoundError:
            raise KeyError(address) from None
        async for piece in found.stream(min_chunk_size=PIECE_BYTES):
            yield bytes(piece)

    async def stat(self, address: str) -> BlobStat | None:
        try:
            found = await obstore.head_async(self._store, _key(address))
        except FileNotFoundError:
            return None
        return BlobStat(address, found["size"])

    async def delete(self, address: str) -> None:
        try:
            await obstore.delete_async(self._store, _key(address))
        except FileNotFoundError:
            return

    async def _create(self, stat: BlobStat, data: bytes) -> None:
        try:
            await obstore.put_async(self._store, _key(stat.address), data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return  # the same content: its address says so

    async def _holds(self, stat: BlobStat) -> bool:
        held = await self.stat(stat.address)
        return held is not None and held.size == stat.size


def _key(address: str) -> str:
    if len(address) != 64 or not all(c in "0123456789abcdef" for c in address):
        raise KeyError(address)
    return f"{address[:2]}/{address[2:4]}/{address}"


def _named(config: dict[str, str]) -> Any:
    """Path-style addresses for an endpoint of one's own: few of those resolve bucket names as host names."""
    if "endpoint" in config:
        return {"virtual_hosted_style_request": "false"} | config
    return config
