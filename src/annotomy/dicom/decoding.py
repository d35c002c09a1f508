"""The decoding child: pixels of untrusted files are decoded in a process that has nothing to lose.

`python -I -m annotomy.dicom.decoding SOCKET_FD` takes tasks from a socket until it closes. It starts with an empty
environment and no open files but that socket, limits its own memory, processor time, files and network before it takes
the first byte, and is thrown away after a number of tasks or any fault (`archive/decode.py` owns it). Codecs written in
C may crash, hang or swell on hostile bytes: then this process ends, and its parent says that the frame is bad.

A task comes as a length and JSON, with two file descriptors: the input (a header, then pieces of pixel data) and an
empty file for the result.
"""

import ctypes
import io
import os
import resource
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from annotomy.dicom.opened_picture import open_picture
from annotomy.dicom.pixels import PixelError, decode_frame, encode_htj2k, modality_values
from annotomy.dicom.rendering import Presentation, picture_of

MEMORY_BYTES: Final = 1 << 30
"""Address space above what the idle process has: a frame of 8192 x 8192 in float32 and what its codec needs."""
CPU_S: Final = 20
"""Processor time of one task; a large JPEG 2000 frame takes about one second."""
OUTPUT_BYTES: Final = 1 << 30
"""Largest result."""
OPEN_FILES: Final = 64

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_PR_SET_NO_NEW_PRIVS = 38


class Piece(msgspec.Struct, frozen=True):
    """Pixel data of the input: the frame `index` of `frames` that these bytes hold."""

    length: int
    index: int
    frames: int


class Task(msgspec.Struct, frozen=True):
    """What to make of the input. A whole file has no pieces; its frames are named by `indices`.

    `htj2k`: the one frame encoded anew. `opened`: the input is no DICOM but a picture (PNG, JPEG, TIFF) of `header_bytes`."""

    make: Literal["values", "units", "picture", "opened", "htj2k"]
    header_bytes: int
    pieces: list[Piece] = []
    indices: list[int] = []
    presentation: Presentation = Presentation()


class Reply(msgspec.Struct, frozen=True):
    """`problem` is for people and holds no value of the file; `spent` says that the child must not be used again."""

    problem: str = ""
    spent: bool = False
    length: int = 0
    shape: list[int] = []
    dtype: str = ""


class Ready(msgspec.Struct, frozen=True):
    """Said once, before the first task."""

    network: bool
    """True where the system did not let the child leave the network."""


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes the channel
    warnings.simplefilter("ignore")
    ready = Ready(network=not _leave_network())
    _limit()
    send(channel, msgspec.json.encode(ready))
    while (received := receive(channel)) is not None:
        body, descriptors = received
        try:
            reply = _answer(msgspec.json.decode(body, type=Task), *descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        send(channel, msgspec.json.encode(reply))


def send(channel: socket.socket, body: bytes, descriptors: tuple[int, ...] = ()) -> None:
    framed = struct.pack("<I", len(body)) + body
    sent = socket.send_fds(channel, [framed], descriptors) if descriptors else 0
    channel.sendall(framed[sent:])


def receive(channel: socket.socket, limit_bytes: int = 1 << 20) -> tuple[bytes, list[int]] | None:
    """A message and its file descriptors; None at the end of the channel. Raises ValueError over the limit."""
    head, descriptors, _, _ = socket.recv_fds(channel, 4, 4)
    while head and len(head) < 4:
        more = channel.recv(4 - len(head))
        if not more:
            return None
        head += more
    if not head:
        return None
    [length] = struct.unpack("<I", head)
    if length > limit_bytes:
        raise ValueError("a message over the limit")
    body = bytearray()
    while len(body) < length:
        piece = channel.recv(length - len(body))
        if not piece:
            return None
        body += piece
    return bytes(body), list(descriptors)


def _leave_network() -> bool:
    """True when the process is in a network of its own, without any interface that is up."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Root may leave at once; others need a user namespace, which some systems do not allow.
    return libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0


def _limit() -> None:
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        resource.setrlimit(what, (value, value))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _answer(task: Task, source: int, result: int) -> Reply:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # Beyond it the kernel ends this process, in whatever codec it is.
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + CPU_S + 1, hard))
    try:
        made = _make(task, source)
        if isinstance(made, bytes):
            _write(result, made)
            return Reply(length=len(made))
        _write(result, made.data.cast("B") if made.size else b"")
        return Reply(length=made.nbytes, shape=list(made.shape), dtype=made.dtype.str)
    except PixelError as error:
        return Reply(problem=str(error))
    except MemoryError:
        return Reply(problem="The frame needs more memory than decoding is given.", spent=True)
    except Exception as error:  # noqa: BLE001 - whatever hostile bytes provoke ends in a word about this frame
        return Reply(problem=f"The frame cannot be decoded ({type(error).__name__}).", spent=True)


def _make(task: Task, source: int) -> bytes | NDArray[Any]:
    if task.make == "opened":
        return open_picture(_read(source, 0, task.header_bytes))
    if task.make == "picture":
        dataset, index = next(_frames(task, source))
        values = decode_frame(dataset, index)
        return picture_of(dataset, values, task.presentation)
    if task.make == "htj2k":
        dataset, index = next(_frames(task, source))
        return encode_htj2k(decode_frame(dataset, index))
    decoded: list[NDArray[Any]] = []
    for dataset, index in _frames(task, source):
        values = decode_frame(dataset, index)
        decoded.append(modality_values(dataset, values) if task.make == "units" else values)
    if any(one.shape != decoded[0].shape or one.dtype != decoded[0].dtype for one in decoded):
        raise PixelError("The frames differ in size.")
    return np.ascontiguousarray(np.stack(decoded))


def _frames(task: Task, source: int) -> Iterator[tuple[Dataset, int]]:
    """(data set, index of the frame in it) of each frame asked for. It is one data set, whose pixels change with each step."""
    dataset = dcmread(io.BytesIO(_read(source, 0, task.header_bytes)))
    if not task.pieces:
        yield from ((dataset, index) for index in task.indices)
        return
    at = task.header_bytes
    for piece in task.pieces:
        _put_pixels(dataset, _read(source, at, piece.length), piece.frames)
        yield dataset, piece.index
        at += piece.length


def _put_pixels(dataset: Dataset, pixels: bytes, frames: int) -> None:
    dataset.NumberOfFrames = frames
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]
    tag, vr = 0x7FE00010, "OW"
    compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
    if compressed:  # the fragments with their item headers, behind an empty offset table (PS3.5 A.4)
        vr = "OB"
        pixels = b"\xfe\xff\x00\xe0\0\0\0\0" + pixels + b"\xfe\xff\xdd\xe0\0\0\0\0"
    elif "PixelRepresentation" not in dataset and dataset.BitsAllocated in (32, 64):  # PS3.3 C.7.6.24, C.7.6.25
        tag, vr = (0x7FE00008, "OF") if dataset.BitsAllocated == 32 else (0x7FE00009, "OD")
    dataset.add(DataElement(tag, vr, pixels, is_undefined_length=compressed))


def _read(source: int, at: int, length: int) -> bytes:
    """os.pread may answer with less than asked for."""
    pieces: list[bytes] = []
    while length:
        piece = os.pread(source, length, at)
        if not piece:
            raise PixelError("The pixel data is cut off.")
        pieces.append(piece)
        at, length = at + len(piece), length - len(piece)
    return b"".join(pieces)


def _write(result: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    if len(view) > OUTPUT_BYTES:
        raise PixelError("The decoded frames are larger than is handed over.")
    while view:
        view = view[os.write(result, view) :]


if __name__ == "__main__":
    main()
