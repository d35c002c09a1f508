"""The part file of an upload: where it lies, one writer at a time, and the writer that spends little processor time.

Bytes go past the page cache (O_DIRECT) in aligned blocks from two buffers: while one is written in a thread, the other
fills. That costs about half the processor time of buffered writes and leaves the cache to the images that are read.
Where a file system takes no O_DIRECT, or the chunk begins off a block, the same buffers are written the common way.
"""

import asyncio
import contextlib
import fcntl
import mmap
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol
from uuid import UUID

from annotomy.services import Services
from annotomy.uploads.errors import UploadBusy

BLOCK_BYTES = 4096
"""O_DIRECT wants addresses, lengths and offsets in multiples of the device's logical block."""
BUFFER_BYTES = 2 << 20
"""Two of these belong to each chunk in flight: large enough for the disk, small enough for ten uploads at once."""
SPARE_BUFFERS = 8
"""Kept for the next chunks: memory from the kernel costs a page fault for each 4 KiB, about as much as the copy into it."""
HANDOVER_WAIT_S = 5.0
"""How long a newer connection waits for the older one to keep what it has and let go."""
HANDOVER_POLL_S = 0.05


_spare: list[mmap.mmap] = []
"""Of this process; only the event loop's thread takes and gives."""


class Digest(Protocol):
    of_pieces: bool
    """Whether it is fed the pieces as they come, on the event loop, instead of whole buffers in a thread."""

    def update(self, data: bytes | memoryview, /) -> object: ...


def part_file(services: Services, upload_id: UUID) -> Path:
    return _folder(services) / f"{upload_id}.part"


def _folder(services: Services) -> Path:
    folder = services.settings.data_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_durably(path: Path) -> None:
    """An empty part file whose name survives a power cut."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _wanted(path).unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def sole_writer(path: Path) -> AsyncGenerator[int]:
    """The descriptor of the part file, locked. A newer connection asks the older one to let go and waits for it.

    The lock is the kernel's: it ends with the process that holds it, however that ends, and is seen by every process of
    the host. Raises UploadBusy when the older connection does not let go, KeyError when there is no part file.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyError(path.name) from None
    try:
        await _lock(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


async def _lock(descriptor: int, path: Path) -> None:
    wanted = _wanted(path)
    deadline = asyncio.get_running_loop().time() + HANDOVER_WAIT_S
    asked = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not asked:
                wanted.touch()
                asked = True
            if asyncio.get_running_loop().time() > deadline:
                wanted.unlink(missing_ok=True)
                raise UploadBusy("Another connection is writing to this upload.") from None
            await asyncio.sleep(HANDOVER_POLL_S)
    wanted.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def held_by_parts(path: Path) -> AsyncGenerator[int]:
    """The descriptor for one of several writers, each of whom writes where no other does. Raises UploadBusy, KeyError."""
    async with _held(path, fcntl.LOCK_SH) as descriptor:
        yield descriptor


@contextlib.asynccontextmanager
async def held_whole(path: Path) -> AsyncGenerator[int]:
    """The descriptor when no part is being written, and none begins. Raises UploadBusy, KeyError."""
    async with _held(path, fcntl.LOCK_EX) as descriptor:
        yield descriptor


@contextlib.asynccontextmanager
async def _held(path: Path, how: int) -> AsyncGenerator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyError(path.name) from None
    try:
        deadline = asyncio.get_running_loop().time() + HANDOVER_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    raise UploadBusy("Another connection is writing to this upload.") from None
                await asyncio.sleep(HANDOVER_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def is_wanted(path: Path) -> bool:
    """Whether a newer connection waits for this part file."""
    return _wanted(path).exists()


def _wanted(path: Path) -> Path:
    return path.with_suffix(".wanted")


class PartWriter:
    """Writes one chunk from `offset` on. `add` copies; `finish` makes it durable. Not for two tasks at once."""

    def __init__(self, path: Path, descriptor: int, offset: int, digest: Digest | None) -> None:
        self._descriptor = descriptor
        self._digest = digest
        self._direct = _open_direct(path) if offset % BLOCK_BYTES == 0 else None
        self._buffers = [_spare.pop() if _spare else mmap.mmap(-1, BUFFER_BYTES) for _ in range(2)]
        self._filled = 0
        self._offset = offset
        self._in_flight: asyncio.Future[None] | None = None

    @property
    def position(self) -> int:
        """Where the next byte goes: everything before it was handed to `add`."""
        return self._offset + self._filled

    async def add(self, piece: bytes) -> None:
        if self._digest is not None and self._digest.of_pieces:
            self._digest.update(piece)
        view = memoryview(piece)
        while view:
            room = min(len(view), BUFFER_BYTES - self._filled)
            self._buffers[0][self._filled : self._filled + room] = view[:room]
            self._filled += room
            view = view[room:]
            if self._filled == BUFFER_BYTES:
                await self._send()

    async def finish(self) -> int:
        """Writes what is left, syncs, and returns the position. A failed sync is never tried again on this file."""
        if self._filled:
            await self._send()
        await self._settle()
        await asyncio.to_thread(os.fdatasync, self._descriptor)
        return self._offset

    async def let_go(self) -> None:
        """Waits until no thread touches the buffers any more, whatever became of the write, and frees them."""
        if self._in_flight is not None:
            await asyncio.wait([self._in_flight])
        if self._direct is not None:
            os.close(self._direct)
        for buffer in self._buffers:
            if len(_spare) < SPARE_BUFFERS:
                _spare.append(buffer)
            else:
                buffer.close()

    async def _send(self) -> None:
        await self._settle()  # one write at a time, so that the digest sees the bytes in order
        buffer, length, offset = self._buffers[0], self._filled, self._offset
        self._buffers.reverse()
        self._filled, self._offset = 0, offset + length
        self._in_flight = asyncio.get_running_loop().run_in_executor(None, self._write, buffer, length, offset)

    async def _settle(self) -> None:
        if self._in_flight is not None:
            # Shielded: the thread reads the buffer until it is done, even when the request is cancelled.
            await asyncio.shield(self._in_flight)
            self._in_flight = None

    def _write(self, buffer: mmap.mmap, length: int, offset: int) -> None:
        with memoryview(buffer) as whole:
            aligned = length - length % BLOCK_BYTES if self._direct is not None else 0
            if aligned and self._direct is not None:
                _write_all(self._direct, whole[:aligned], offset)
            if aligned < length:
                _write_all(self._descriptor, whole[aligned:length], offset + aligned)
            if self._digest is not None and not self._digest.of_pieces:
                self._digest.update(whole[:length])


def _open_direct(path: Path) -> int | None:
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None  # tmpfs and some network file systems


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
