"""Decoding outside of this process: frames of stored instances go to a child (`dicom/decoding.py`) and come back as arrays.

One pool in each process, started at the first use. A child that crashes, hangs or answers nonsense is killed and replaced,
and the frame is told as bad; the server lives on. Pixels travel in anonymous files, never through a pipe or a pickle.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Final, Literal

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from annotomy.actor import Actor
from annotomy.archive.retrieve import MAX_HEADER_BYTES, FrameSource, InstanceLocation, frame_tables, headers
from annotomy.dicom.decoding import Piece, Ready, Reply, Task, receive, send
from annotomy.dicom.pixels import PixelError
from annotomy.dicom.rendering import Presentation
from annotomy.errors import Unavailable
from annotomy.services import Services

CHILDREN: Final = min(2, os.cpu_count() or 1)
"""Children of each process; every HTTP process and worker has its own."""
TASKS_BEFORE_RECYCLING: Final = 200
"""What leaks in codecs, and what a file may have left behind, lives no longer than this."""
WALL_S: Final = 30.0
"""A task that has not answered by then is ended, whatever it waits for."""
START_S: Final = 60.0
"""Imports on a machine that is busy."""
MAX_WAITING: Final = 64
"""Tasks of one process that run or wait; more are refused, since each holds its frame's bytes."""
SMALL_BYTES: Final = 1 << 20
"""Frames up to this are read at once; larger ones stream through in pieces."""
MAX_INPUT_BYTES: Final = 1 << 30
"""Pixel data of one task: a frame, or a whole deflated or big-endian file."""
_DTYPES = frozenset({"|u1", "|i1", "|b1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8"})


async def frame_sources(services: Services, actor: Actor, located: list[InstanceLocation]) -> list[FrameSource]:
    """In the order of `located`."""
    async with services.db.read(actor) as tx:
        kept, tables = await headers(tx, located), await frame_tables(tx, located)
    return [FrameSource(*one) for one in zip(located, kept, tables, strict=True)]


async def decode_frames(
    services: Services, source: FrameSource, frame_indices: Sequence[int], *, units: bool = False
) -> NDArray[Any]:
    """(frames, rows, columns[, 3]) of the frames (from 0), read-only.

    Stored values, colour as RGB; with `units` float32 in modality units. Raises PixelError, and Unavailable under load.
    """
    result = await _run(services, source, frame_indices, make="units" if units else "values")
    assert not isinstance(result, bytes)
    return result


async def render(services: Services, source: FrameSource, frame_index: int, presentation: Presentation) -> bytes:
    """A picture of one frame (from 0). Raises PixelError, and Unavailable under load."""
    result = await _run(services, source, [frame_index], make="picture", presentation=presentation)
    assert isinstance(result, bytes)
    return result


async def transcode_frame(services: Services, source: FrameSource, frame_index: int) -> bytes:
    """One frame (from 0) as lossless HTJ2K. Raises PixelError, and Unavailable under load."""
    result = await _run(services, source, [frame_index], make="htj2k")
    assert isinstance(result, bytes)
    return result


async def open_picture(data: bytes) -> NDArray[Any]:
    """(pages, rows, columns) of a PNG, JPEG or TIFF file. Raises PixelError, and Unavailable under load."""
    if len(data) > MAX_INPUT_BYTES:
        raise PixelError("The picture is larger than is decoded at once.")
    with _pool().place(), _anonymous_file() as given, _anonymous_file() as result:
        await asyncio.to_thread(_write_all, given.fileno(), data)
        task = Task(make="opened", header_bytes=len(data))
        opened = await asyncio.wrap_future(_pool().submit(task, os.dup(given.fileno()), os.dup(result.fileno())))
    assert not isinstance(opened, bytes)
    return opened


async def _run(
    services: Services,
    source: FrameSource,
    indices: Sequence[int],
    *,
    make: Literal["values", "units", "picture", "htj2k"],
    **options: Any,
) -> bytes | NDArray[Any]:
    with _pool().place(), _anonymous_file() as given, _anonymous_file() as result:
        if source.ranges:
            if (
                sum(source.ranges[index][1] for index in indices) <= SMALL_BYTES
            ):  # each step aside costs more than the copy
                frames = [await services.blobs.read(source.at.blob_address, *source.ranges[index]) for index in indices]
                header_bytes = await asyncio.to_thread(_write_small, given.fileno(), source.header, frames)
            else:
                header_bytes = await asyncio.to_thread(_write_small, given.fileno(), source.header, [])
                for index in indices:
                    await _copy(services, source.at, *source.ranges[index], given.fileno())
            pieces = [_piece(source, index) for index in indices]
            task = Task(make=make, header_bytes=header_bytes, pieces=pieces, **options)
        else:
            await _copy(services, source.at, 0, source.at.blob_size, given.fileno())
            task = Task(make=make, header_bytes=source.at.blob_size, indices=list(indices), **options)
        # Descriptors of its own: the child may still be at work when the asker has gone away and the block has ended.
        return await asyncio.wrap_future(_pool().submit(task, os.dup(given.fileno()), os.dup(result.fileno())))


def _plain(header: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(header, max_output_size=MAX_HEADER_BYTES)


def _write_small(given: int, header: bytes, frames: list[bytes]) -> int:
    """The header's length."""
    plain = _plain(header)
    for data in (plain, *frames):
        _write_all(given, data)
    return len(plain)


def _piece(source: FrameSource, index: int) -> Piece:
    _, length = source.ranges[index]
    # Frames of one bit may begin inside a byte: each range is then the whole element (`dicom/frames.py`).
    shared = len(source.ranges) > 1 and source.ranges[0] == source.ranges[1]
    return Piece(length=length, index=index if shared else 0, frames=len(source.ranges) if shared else 1)


async def _copy(services: Services, at: InstanceLocation, start: int, length: int, given: int) -> None:
    if length > MAX_INPUT_BYTES:
        raise PixelError("The pixel data is larger than is decoded at once.")
    async for piece in services.blobs.stream(at.blob_address, start, length):
        await asyncio.to_thread(_write_all, given, piece)


def _anonymous_file() -> Any:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("annotomy-frames", os.MFD_CLOEXEC), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


# ------------------------------------------------------------------------------------------------------------ the pool
@cache
def _pool() -> "DecodePool":
    """This process's children. No request leaves anything in it, so that it needs no place in Services."""
    return DecodePool(CHILDREN)


class DecodePool:
    """Threads that each own one child: a task blocks its thread, never the event loop."""

    def __init__(self, children: int) -> None:
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="decode")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._waiting = 0

    def place(self) -> "_Place":
        """Holds a place in the queue for a block. Raises Unavailable when it is full."""
        return _Place(self)

    def submit(self, task: Task, given: int, result: int) -> "Future[bytes | NDArray[Any]]":
        """Takes both file descriptors over and closes them, whatever becomes of the task."""
        running = self._threads.submit(self._run, task, given, result)
        running.add_done_callback(lambda _: (os.close(given), os.close(result)))
        return running

    def enter(self) -> None:
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise Unavailable("Too many frames wait to be decoded.")
            self._waiting += 1

    def leave(self) -> None:
        with self._lock:
            self._waiting -= 1

    def _run(self, task: Task, given: int, result: int) -> bytes | NDArray[Any]:
        child: Child | None = getattr(self._local, "child", None)
        if child is None or not child.fit():
            child = self._local.child = Child()
        return child.ask(task, given, result)


class _Place:
    def __init__(self, pool: DecodePool) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        self._pool.enter()

    def __exit__(self, *_: object) -> None:
        self._pool.leave()


class Child:
    """One decoding process and the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", "annotomy.dicom.decoding", str(theirs.fileno())],
                # Nothing is inherited: no secret, no address of the database, no descriptor, no terminal.
                env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries quote values of the file in their warnings
                pass_fds=(theirs.fileno(),),
            )
        self._channel = ours
        self._tasks = 0
        self._dead = False
        self._channel.settimeout(START_S)
        ready = self._hear()
        if ready is None:
            raise RuntimeError("the decoding process does not start")
        self.network = msgspec.json.decode(ready, type=Ready).network
        self._channel.settimeout(WALL_S)

    def fit(self) -> bool:
        """Whether it may take another task."""
        if self._tasks >= TASKS_BEFORE_RECYCLING:
            self.end()
        return not self._dead and self.process.poll() is None

    def ask(self, task: Task, given: int, result: int) -> bytes | NDArray[Any]:
        """Raises PixelError."""
        self._tasks += 1
        try:
            send(self._channel, msgspec.json.encode(task), (given, result))
            heard = self._hear()
            reply = None if heard is None else msgspec.json.decode(heard, type=Reply)
        except TimeoutError as error:
            self.end()
            raise PixelError(f"Decoding the frame took longer than {WALL_S:.0f} s.") from error
        except (OSError, ValueError) as error:
            self.end()
            raise PixelError("Decoding the frame broke its process.") from error
        if reply is None:
            self.end()
            raise PixelError("Decoding the frame broke its process.")
        if reply.spent:
            self.end()
        if reply.problem:
            raise PixelError(reply.problem[:300])
        return _taken(reply, result)

    def end(self) -> None:
        self._dead = True
        self._channel.close()
        self.process.kill()
        self.process.wait()

    def _hear(self) -> bytes | None:
        try:
            received = receive(self._channel)
        except TimeoutError:
            self.end()
            raise
        if received is None:
            self.end()
            return None
        body, descriptors = received
        for descriptor in descriptors:
            os.close(descriptor)
        return body


def _taken(reply: Reply, result: int) -> bytes | NDArray[Any]:
    """The result, copied out of the shared file: what the child may still do to it no longer matters."""
    size = os.fstat(result).st_size
    expected = reply.length
    if reply.shape:
        if reply.dtype not in _DTYPES or min(reply.shape) < 1:
            raise PixelError("Decoding the frame broke its process.")
        expected = int(np.prod(np.array(reply.shape, dtype=object))) * np.dtype(reply.dtype).itemsize
    if not size == reply.length == expected:
        raise PixelError("Decoding the frame broke its process.")
    data, at = bytearray(size), 0
    while at < size:
        read = os.preadv(result, [memoryview(data)[at:]], at)
        if read == 0:
            raise PixelError("Decoding the frame broke its process.")
        at += read
    if not reply.shape:
        return bytes(data)
    values = np.frombuffer(data, np.dtype(reply.dtype)).reshape(reply.shape)
    values.flags.writeable = False
    return values
