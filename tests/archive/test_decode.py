"""Frames decoded in a child process: the right values, and a server that survives whatever the child does."""

import asyncio
import io
import os
import resource
import signal
import struct
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from annotomy.archive import decode
from annotomy.archive.decode import Child, FrameSource, decode_frames, render
from annotomy.archive.errors import NotDicom
from annotomy.archive.parse import parse_instance
from annotomy.archive.retrieve import InstanceLocation
from annotomy.blobs.filesystem import FilesystemBlobStore
from annotomy.dicom.pixels import PixelError, modality_values
from annotomy.dicom.rendering import Presentation
from annotomy.errors import Unavailable
from annotomy.services import Services
from tests.support import codestreams
from tests.support.codestreams import image
from tests.support.dicom_files import ct_series
from tests.support.mutations import packaged_files

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MAX_DECODED_BYTES = 4 << 20


class Shelf:
    """Blobs in a folder, and sources of the files put there; no database takes part."""

    def __init__(self, folder: Path) -> None:
        self.blobs = FilesystemBlobStore(folder)
        self.services = cast(Services, SimpleNamespace(blobs=self.blobs))

    async def source(self, data: bytes) -> FrameSource:
        parsed = parse_instance(data)
        blob = await self.blobs.put(data)
        columns = parsed.instance_columns
        at = InstanceLocation(
            1, parsed.study_instance_uid, parsed.series_instance_uid, parsed.sop_instance_uid, parsed.sop_class_uid,
            columns["transfer_syntax_uid"], columns["number_of_frames"], blob.address, blob.size,
        )  # fmt: skip
        return FrameSource(at, parsed.header, list(struct.iter_unpack("<QQ", parsed.frames)))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "blobs")


def _decodable() -> list[Path]:
    chosen: list[Path] = []
    for path in packaged_files():
        if path.stat().st_size <= MAX_DECODED_BYTES and "data_store" not in str(path.parent.parent.parent):
            try:
                if parse_instance(path).instance_columns["number_of_frames"]:
                    chosen.append(path)
            except NotDicom:
                continue
    return chosen


@pytest.mark.parametrize("path", _decodable(), ids=lambda path: path.name)
async def test_frames_are_what_pydicom_decodes(shelf: Shelf, path: Path) -> None:
    data = path.read_bytes()
    source = await shelf.source(data)
    dataset = dcmread(io.BytesIO(data))
    last = source.at.number_of_frames - 1
    try:
        expected = pixel_array(dataset, index=last)
    except (RuntimeError, NotImplementedError, ValueError):
        pytest.skip("pydicom does not decode it with the codecs that are installed")
    found = await decode_frames(shelf.services, source, [last])
    assert np.array_equal(found[0], expected)
    if expected.ndim == 2 and dataset.PhotometricInterpretation != "PALETTE COLOR":
        units = await decode_frames(shelf.services, source, [last], units=True)
        assert np.array_equal(units[0], modality_values(dataset, expected))


async def test_several_frames_come_as_one_array_and_a_picture_fits_its_side(shelf: Shelf) -> None:
    frames = [codestreams.rle([bytes([1, n, n]) + b"\x81" + bytes([n]) + b"\x83" + bytes([n]) + b"\0"]) for n in (7, 9)]
    source = await shelf.source(image(syntax=codestreams.RLE, frames=frames))
    found = await decode_frames(shelf.services, source, [1, 0])
    assert found.shape == (2, 16, 16)
    assert [int(frame[0, 0]) for frame in found] == [9, 7]
    picture = await render(shelf.services, source, 1, Presentation("image/png", window=(5, 10), max_side=8))
    assert Image.open(io.BytesIO(picture)).size == (8, 8)


HUGE = 60_000


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (codestreams.JPEG2000, codestreams.jpeg2000(HUGE, HUGE)),
        (codestreams.JPEG2000, codestreams.jpeg2000(0x7FFFFFFF, 0x7FFFFFFF)),
        (codestreams.HTJ2K, codestreams.jpeg2000(HUGE, HUGE, high_throughput=True)),
        (codestreams.JPEG_LS, codestreams.jpeg_ls(HUGE, HUGE)),
        (codestreams.JPEG, codestreams.jpeg(HUGE, HUGE)),
        (codestreams.RLE, codestreams.rle([b"\x81\0" * 2], offsets=[0xFFFFFFFE])),
        (codestreams.RLE, codestreams.rle([b"\x81\0" * 2], offsets=[0])),
        (codestreams.RLE, struct.pack("<16I", 15, *range(64, 124, 4))),
        (codestreams.RLE, struct.pack("<16I", 0xFFFFFFFF, *[64] * 15)),
        (codestreams.JPEG2000, b"\xff\x4f\xff\x51" + b"\xff" * 60),
        (codestreams.JPEG_LS, os.urandom(4000)),
    ],
)
async def test_a_codestream_that_lies_is_a_pixel_error_and_the_next_frame_is_decoded(
    shelf: Shelf, syntax: str, frame: bytes
) -> None:
    with pytest.raises(PixelError) as refused:
        await render(
            shelf.services, await shelf.source(image(syntax=syntax, frames=[frame])), 0, Presentation("image/png")
        )
    assert len(str(refused.value)) < 200
    [good] = ct_series(1)
    assert await render(shelf.services, await shelf.source(good), 0, Presentation("image/png"))


async def test_a_frame_that_needs_more_memory_than_is_given_is_a_pixel_error(shelf: Shelf) -> None:
    frame = codestreams.rle([codestreams.rle_zeros(16384 * 16384)])
    source = await shelf.source(image(syntax=codestreams.RLE, frames=[frame], Rows=16384, Columns=16384))
    with pytest.raises(PixelError):
        await decode_frames(shelf.services, source, [0], units=True)


# ------------------------------------------------------------------------------------------------- the child as such
async def _ask(child: Child, shelf: Shelf) -> Any:
    """One task, sent past the pool."""
    source = await shelf.source(ct_series(1)[0])
    header = decode._plain(source.header)  # pyright: ignore[reportPrivateUsage] - the task that the pool would send
    start, length = source.ranges[0]
    pixels = await shelf.blobs.read(source.at.blob_address, start, length)
    task = decode.Task(make="values", header_bytes=len(header), pieces=[decode.Piece(length, 0, 1)])
    given, result = os.memfd_create("given"), os.memfd_create("result")
    os.write(given, header + pixels)
    try:
        return await asyncio.to_thread(child.ask, task, given, result)
    finally:
        os.close(given)
        os.close(result)


@linux_only
async def test_the_child_inherits_nothing_and_is_limited(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNOTOMY_DATABASE_URL", "postgresql://secret")
    child = Child()
    try:
        await _ask(child, shelf)
        process = Path(f"/proc/{child.process.pid}")
        assert b"secret" not in (process / "environ").read_bytes()
        assert not any("PATH=" in item for item in (process / "environ").read_text().split("\0"))
        targets = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
        assert sum(target.startswith("socket:") for target in targets) == 1
        assert all(target == "/dev/null" or target.startswith("socket:") for target in targets)
        pid = child.process.pid
        size = int((process / "statm").read_text().split()[0]) * resource.getpagesize()
        assert 0 < resource.prlimit(pid, resource.RLIMIT_AS)[0] <= size + decode.MAX_INPUT_BYTES + (64 << 20)
        assert resource.prlimit(pid, resource.RLIMIT_CPU)[0] < 60
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        same_network = (process / "ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        assert child.network == same_network, "the child tells truly whether it left the network"
    finally:
        child.end()


@linux_only
async def test_a_child_that_dies_or_hangs_is_a_pixel_error(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child()
    os.kill(child.process.pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (child.process.pid, signal.SIGKILL)).start()
    with pytest.raises(PixelError, match="broke its process"):
        await _ask(child, shelf)
    assert not child.fit()
    monkeypatch.setattr(decode, "WALL_S", 0.5)
    child = Child()
    os.kill(child.process.pid, signal.SIGSTOP)
    with pytest.raises(PixelError, match="took longer"):
        await _ask(child, shelf)
    assert child.process.returncode == -signal.SIGKILL


async def test_a_child_is_replaced_after_its_share_of_tasks(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "TASKS_BEFORE_RECYCLING", 2)
    child = Child()
    await _ask(child, shelf)
    assert child.fit()
    await _ask(child, shelf)
    assert not child.fit()
    assert child.process.returncode is not None


@linux_only
async def test_an_answer_that_is_no_answer_is_a_pixel_error(shelf: Shelf) -> None:
    del shelf
    result = os.memfd_create("result")
    try:
        os.write(result, b"1234")
        for reply in (
            decode.Reply(length=5), decode.Reply(length=4, shape=[2, 2], dtype="<f8"), decode.Reply(length=4, shape=[-4], dtype="|u1"),
            decode.Reply(length=4, shape=[1], dtype="|O8"), decode.Reply(length=4, shape=[1 << 40, 1 << 40], dtype="|u1"),
        ):  # fmt: skip
            with pytest.raises(PixelError):
                decode._taken(reply, result)  # pyright: ignore[reportPrivateUsage] - what a broken child may say
    finally:
        os.close(result)


async def test_more_frames_than_may_wait_are_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_WAITING", 0)
    with pytest.raises(Unavailable):
        await render(shelf.services, await shelf.source(ct_series(1)[0]), 0, Presentation("image/png"))
