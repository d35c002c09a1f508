"""Blobs as files of a local disk: `blobs/aa/bb/<address>`, written durably and never overwritten.

Order (docs/decisions/0002): temporary file on the same file system, fdatasync, link to the final name, fsync of every
folder that gained a name. A failed fsync fails the put and drops the file; it is never retried on the same descriptor.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from blake3 import blake3

from annotomy.ports import BlobStat

PIECE_BYTES = 1 << 20


class FilesystemBlobStore:
    """A BlobStore over one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)

    async def put(self, data: bytes) -> BlobStat:
        return await asyncio.to_thread(self._put, data)

    async def put_file(self, path: Path) -> BlobStat:
        return await asyncio.to_thread(self._put_file, path)

    async def read(self, address: str, start: int = 0, length: int | None = None) -> bytes:
        return await asyncio.to_thread(self._read, address, start, length)

    async def stream(self, address: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        end = None if length is None else start + length
        while end is None or start < end:
            wanted = PIECE_BYTES if end is None else min(PIECE_BYTES, end - start)
            piece = await self.read(address, start, wanted)
            if piece:
                yield piece
            if len(piece) < wanted:  # its end: a file is never read short before
                return
            start += len(piece)

    async def stat(self, address: str) -> BlobStat | None:
        try:
            return BlobStat(address, (await asyncio.to_thread(self._path(address).stat)).st_size)
        except FileNotFoundError:
            return None

    async def delete(self, address: str) -> None:
        await asyncio.to_thread(self._path(address).unlink, missing_ok=True)

    def _path(self, address: str) -> Path:
        if len(address) != 64 or not all(c in "0123456789abcdef" for c in address):
            raise KeyError(address)
        return self._root / address[:2] / address[2:4] / address

    def _put(self, data: bytes) -> BlobStat:
        stat = BlobStat(blake3(data).hexdigest(), len(data))
        if self._holds(stat):
            return stat
        temporary = self._temporary / secrets.token_hex(16)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self._name(temporary, stat.address)
        return stat

    def _put_file(self, path: Path) -> BlobStat:
        with path.open("rb") as file:
            hasher = blake3()
            hasher.update_mmap(path)
            stat = BlobStat(hasher.hexdigest(), path.stat().st_size)
            os.fdatasync(file.fileno())
        if self._holds(stat):
            path.unlink()
        else:
            self._name(path, stat.address)
        return stat

    def _holds(self, stat: BlobStat) -> bool:
        try:
            return self._path(stat.address).stat().st_size == stat.size
        except FileNotFoundError:
            return False

    def _name(self, temporary: Path, address: str) -> None:
        final = self._path(address)
        changed = [final.parent]
        for folder in (final.parent.parent, final.parent):
            try:
                folder.mkdir()
                changed.append(folder.parent)
            except FileExistsError:
                pass
        with contextlib.suppress(FileExistsError):  # the same content, put by another at the same moment
            os.link(temporary, final)
        temporary.unlink()
        for folder in changed:
            _sync_folder(folder)

    def _read(self, address: str, start: int, length: int | None) -> bytes:
        try:
            descriptor = os.open(self._path(address), os.O_RDONLY)
        except FileNotFoundError:
            raise KeyError(address) from None
        try:
            if length is None:
                length = os.fstat(descriptor).st_size - start
            return os.pread(descriptor, max(0, length), start)
        finally:
            os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
