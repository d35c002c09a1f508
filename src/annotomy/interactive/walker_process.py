"""The child that computes: `python -m annotomy.interactive.walker_process SOCKET`. HTTP processes stay without scipy, and a
long computation never holds their event loop.

One request at a time. Voxels, hints and the mask travel in anonymous memory whose descriptors are passed along; the child
reads of a volume no more than the region. It ends when its parent's end of the socket closes.
"""

import contextlib
import mmap
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.interactive.errors import InteractiveFailed

ANSWER_S = 20.0
"""A region is solved in tenths of a second; what takes longer is stuck."""
MESSAGE_BYTES = 4096

Shape = tuple[int, int, int]
Box = tuple[Shape, Shape]


class Request(msgspec.Struct, frozen=True):
    """Descriptors with it: the voxels, the hints (int32 rows of k, j, i, on the object), and room for the mask."""

    dtype: str
    shape_kji: Shape
    spacing_kji: tuple[float, float, float]
    hints: int
    box: Box | None


class Reply(msgspec.Struct, frozen=True):
    region: Box | None = None
    """None: it failed."""
    voxels: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    box: Box
    voxels: int
    bits: bytes
    """Packed, lowest bit first, in [k, j, i] order."""

    def mask(self) -> NDArray[np.bool_]:
        shape = _extent(self.box)
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=int(np.prod(shape)), bitorder="little")
        return flat.view(np.bool_).reshape(shape)


class WalkerProcess:
    """The one child of this process, started by the first request and replaced when it fails. Safe to use from threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._conversation: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Of the child; None before the first request."""
        return self._child.pid if self._child is not None else None

    def segment(self, voxels: int, request: Request, hints: NDArray[np.int32]) -> Region:
        """`voxels` is the descriptor of the volume. Raises InteractiveFailed."""
        room = int(np.prod(request.shape_kji)) // 8 + 1
        with self._turn, _memory("hints", hints.nbytes) as told, _memory("mask", room) as mask:
            os.pwrite(told, np.ascontiguousarray(hints, np.int32).tobytes(), 0)
            try:
                conversation = self._started()
                socket.send_fds(conversation, [msgspec.json.encode(request)], [voxels, told, mask])
                reply = msgspec.json.decode(conversation.recv(MESSAGE_BYTES), type=Reply)
            except (OSError, msgspec.MsgspecError) as error:
                self._end()
                raise InteractiveFailed("The mask was not computed in time; the hints are kept.") from error
            if reply.region is None:
                raise InteractiveFailed("The mask could not be computed from these hints.")
            size = (int(np.prod(_extent(reply.region))) + 7) // 8
            return Region(reply.region, reply.voxels, os.pread(mask, size, 0))

    def _started(self) -> socket.socket:
        if self._child is not None and self._child.poll() is None and self._conversation is not None:
            return self._conversation
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "annotomy.interactive.walker_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                # Nothing of our environment: it may name the database with its password.
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        ours.settimeout(ANSWER_S)
        self._conversation = ours
        return ours

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None


@contextlib.contextmanager
def _memory(name: str, size: int):
    descriptor = os.memfd_create(name)
    try:
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


def _extent(box: Box) -> Shape:
    (a, b, c), (x, y, z) = box
    return x - a, y - b, z - c


def main() -> None:
    conversation = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _, _ = socket.recv_fds(conversation, MESSAGE_BYTES, 3)
        if not message:
            return
        try:
            reply = _segment(msgspec.json.decode(message, type=Request), *descriptors)
        except (ValueError, IndexError, MemoryError, FloatingPointError):
            reply = Reply()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        conversation.send(msgspec.json.encode(reply))


def _segment(request: Request, voxels: int, told: int, mask: int) -> Reply:
    from annotomy.interactive.random_walker import Hints, segment  # heavy: scipy, which the parent never imports

    size = int(np.prod(request.shape_kji)) * np.dtype(request.dtype).itemsize
    shared = mmap.mmap(voxels, size, prot=mmap.PROT_READ)
    values = np.frombuffer(shared, request.dtype).reshape(request.shape_kji)
    rows = np.frombuffer(os.pread(told, request.hints * 16, 0), np.int32).reshape(-1, 4).astype(np.int64)
    hints = Hints(rows[:, :3], rows[:, 3].astype(np.bool_), request.box)
    box, found = segment(values, request.spacing_kji, hints)
    os.pwrite(mask, np.packbits(found, bitorder="little").tobytes(), 0)
    return Reply(box, int(np.count_nonzero(found)))


if __name__ == "__main__":
    main()
