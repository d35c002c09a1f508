"""The table of frames: right for every packaged file, and made only of what the bytes really hold."""

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from annotomy.archive.errors import NotDicom
from annotomy.archive.parse import parse_instance
from annotomy.dicom.frames import MAX_FRAMES, Dimensions, check, frame_table
from annotomy.dicom.scanner import Element, Scan, ScanError
from tests.support.mutations import packaged_files

JPEG = "1.2.840.10008.1.2.4.50"
NATIVE = "1.2.840.10008.1.2.1"


def table(
    pixel_data: bytes, *, syntax: str = JPEG, length: int | None = None, **dimensions: Any
) -> list[tuple[int, int]]:
    told = 0xFFFFFFFF if syntax == JPEG and length is None else len(pixel_data) if length is None else length
    found = Scan(
        data=pixel_data, transfer_syntax_uid=syntax, implicit=False, little_endian=True, deflated=False, meta_end=0,
        header_end=0, pixels=Element(0x7FE00010, "OB", 0, told),
    )  # fmt: skip
    chosen: dict[str, Any] = {"rows": 2, "columns": 2, "frames": 1, "samples": 1, "bits": 8, "half_chroma": False}
    size = Dimensions(**(chosen | dimensions))
    return list(struct.iter_unpack("<QQ", frame_table(found, size)))


def item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value


END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def _with_pixels() -> list[Path]:
    return [p for p in packaged_files() if p.name not in ("DICOMDIR", "meta_missing_tsyntax.dcm")]


@pytest.mark.parametrize("path", _with_pixels(), ids=lambda path: path.name)
def test_frames_of_packaged_files_lie_where_pydicom_finds_them(path: Path) -> None:
    data = path.read_bytes()
    try:
        parsed = parse_instance(data)
    except NotDicom:
        return  # why, is told by the tests of the scanner and of the store
    ranges = list(struct.iter_unpack("<QQ", parsed.frames))
    if not ranges:
        return
    dataset = dcmread(io.BytesIO(data))
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    assert len(ranges) == count == parsed.instance_columns["number_of_frames"]
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        expected = list(generate_frames(dataset.PixelData, number_of_frames=count))
        found = [_joined(data[start : start + length]) for start, length in ranges]
        assert found == expected
    elif dataset.get("BitsAllocated") != 1:
        pixels = dataset.get("PixelData") or dataset.get("FloatPixelData") or dataset.DoubleFloatPixelData
        whole = b"".join(data[start : start + length] for start, length in ranges)
        assert pixels.startswith(whole)
        thirds = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else 3
        samples = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * thirds // 3
        assert len(whole) == count * samples * dataset.BitsAllocated // 8


def _joined(frame: bytes) -> bytes:
    at, pieces = 0, list[bytes]()
    while at < len(frame):
        length = int.from_bytes(frame[at + 4 : at + 8], "little")
        pieces.append(frame[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces)


@given(st.lists(st.binary(min_size=6, max_size=60), min_size=1, max_size=6), st.integers(1, 3), st.booleans())
def test_any_encapsulation_is_cut_into_its_frames(frames: list[bytes], fragments: int, has_table: bool) -> None:
    frames = [frame + b"\0" * (len(frame) % 2) for frame in frames]
    if not has_table and len(frames) > 1:
        fragments = 1
    data = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_table) + END
    found = [_joined(data[start : start + length]) for start, length in table(data, frames=len(frames))]
    assert [f.rstrip(b"\0") for f in found] == [f.rstrip(b"\0") for f in frames]


def test_an_extended_offset_table_is_used_and_a_lie_in_it_is_refused() -> None:
    frames = [b"ab" * 9, b"cd" * 4]
    data, offsets, _ = encapsulate_extended(frames)
    split = item(b"") + item(b"ab" * 4) + item(b"ab" * 5) + item(b"cd" * 4) + END
    honest = struct.pack("<2Q", 0, 8 + 8 + 8 + 10)
    found = table(split, frames=2, extended_offsets=honest)
    assert [_joined(split[start : start + length]) for start, length in found] == frames
    assert table(data + END, frames=2, extended_offsets=offsets)
    for lie in ((0, 3), (0, 1 << 63), (16, 34), (34, 0), (0, 0)):
        with pytest.raises(ScanError, match="table of frames"):
            table(split, frames=2, extended_offsets=struct.pack("<2Q", *lie))


@pytest.mark.parametrize(
    "offsets", [(0, 5), (0, 0xFFFFFFFF), (18, 36), (18, 0), (0, 0)], ids=["inside", "far", "not first", "back", "same"]
)
def test_a_basic_offset_table_that_lies_is_refused(offsets: tuple[int, int]) -> None:
    data = item(struct.pack("<2I", *offsets)) + item(b"a" * 10) + item(b"b" * 4) + item(b"c" * 4) + END
    with pytest.raises(ScanError, match="table of frames"):
        table(data, frames=2)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xfe\xff\x00", item(b""), item(b"") + END, item(b"abc") + item(b"12") + END, END,
        item(b"") + b"\xfe\xff\x00\xe0\xff\xff\xff\x7f" + b"cut", item(b"") + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + END,
        item(b"") + item(b"12"), item(b"") + item(b"12") + b"junk that is no item", item(b"") + item(b"12") + END[:5],
    ],
)  # fmt: skip
def test_damaged_encapsulations_are_refused(data: bytes) -> None:
    with pytest.raises(ScanError):
        table(data)


def test_frames_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ScanError, match="told apart"):
        table(item(b"") + item(b"12") * 3 + END, frames=2)
    marked = item(b"") + item(b"12") + item(b"34\xff\xd9") + item(b"56\xff\xd9") + END
    assert table(marked, frames=2) == [(8, 22), (30, 12)]


@given(*(st.integers(-(1 << 31), 1 << 31) for _ in range(5)))
def test_dimensions_that_the_bytes_do_not_hold_never_make_a_table(
    rows: int, columns: int, frames: int, samples: int, bits: int
) -> None:
    with pytest.raises(ScanError):
        table(b"", syntax=NATIVE, rows=rows, columns=columns, frames=frames, samples=samples, bits=bits)


@pytest.mark.parametrize(
    "dimensions",
    [
        {"rows": 65535, "columns": 65535, "frames": 1 << 30},
        {"rows": 0}, {"columns": 0}, {"frames": 0}, {"frames": -1}, {"samples": 0}, {"samples": 5}, {"bits": 12}, {"bits": 0},
        {"rows": 1, "columns": 1, "frames": MAX_FRAMES + 1}, {"rows": 65535, "columns": 65535, "samples": 4, "frames": 2},
    ],
)  # fmt: skip
def test_dimensions_out_of_bounds_are_refused_before_anything_is_made(dimensions: dict[str, Any]) -> None:
    base: dict[str, Any] = {"rows": 2, "columns": 2, "frames": 1, "samples": 1, "bits": 8}
    with pytest.raises(ScanError):
        check(Dimensions(**base | dimensions, half_chroma=False))


def test_native_frames_are_cut_by_their_dimensions() -> None:
    assert table(b"x" * 12, syntax=NATIVE, frames=3) == [(0, 4), (4, 4), (8, 4)]
    assert table(b"x" * 3, syntax=NATIVE, frames=2, bits=1, rows=3, columns=3) == [(0, 3), (0, 3)]
    for wrong in ({"frames": 4}, {"frames": 2, "bits": 64}, {"length": 0xFFFFFFFF}, {"length": 400}):
        with pytest.raises(ScanError):
            table(b"x" * 12, syntax=NATIVE, **wrong)
    with pytest.raises(ScanError, match="encapsulated"):
        table(b"x" * 12, syntax=JPEG, length=12)
