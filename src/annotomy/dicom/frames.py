"""The table of frames: where each frame of the pixel data lies in the file, found without decoding anything.

Native pixel data is cut by its dimensions (PS3.5 8.1.1), encapsulated pixel data by its fragments and offset tables
(PS3.5 A.4, PS3.3 C.7.6.3.1.8). Everything the file says of itself is checked against its bytes before a table is made.
"""

import struct
from dataclasses import dataclass
from typing import Final

from annotomy.dicom.scanner import DEFLATED, EXPLICIT_BIG, Scan, ScanError

MAX_SAMPLES: Final = 1 << 34
"""Samples in one instance: rows x columns x frames x samples. A whole-slide level stays below; a lie does not."""
MAX_FRAMES: Final = 1 << 20
"""Frames of one instance: a slide of 260,000 pixels square in tiles of 256. The table takes 16 bytes for each."""
MAX_FRAGMENTS: Final = 1 << 20
"""Fragments of encapsulated pixel data; one for each frame is what is sent."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", EXPLICIT_BIG, DEFLATED, "1.2.840.113619.5.2"})


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What the header says of its pixels."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits: int
    half_chroma: bool
    """YBR_FULL_422: two thirds of the samples are stored."""
    extended_offsets: bytes = b""
    """Extended Offset Table: uint64 of each frame."""


def frame_table(found: Scan, dimensions: Dimensions) -> bytes:
    """Little-endian uint64 pairs (offset, length); an encapsulated frame includes its item headers.

    Empty for deflated and big-endian files, whose frames are reached by reading the whole file. Raises ScanError.
    """
    pixels = found.pixels
    if pixels is None:
        return b""
    check(dimensions)
    encapsulated = found.transfer_syntax_uid not in _NATIVE
    if encapsulated != (pixels.length == _UNDEFINED):
        raise ScanError("The pixel data is not encapsulated as its transfer syntax says.")
    if encapsulated:
        return _encapsulated(found, pixels.value_at, dimensions)
    if pixels.value_at + pixels.length > len(found.data):
        raise ScanError("The pixel data is cut off.")
    table = _native(pixels.value_at, pixels.length, dimensions)
    return b"" if found.deflated or not found.little_endian else table


def check(dimensions: Dimensions) -> None:
    """Before anything is allocated. Raises ScanError."""
    d = dimensions
    if min(d.rows, d.columns, d.frames, d.samples) < 1 or max(d.rows, d.columns) > 0xFFFFFFFF or d.samples > 4:
        raise ScanError("The image dimensions are out of bounds.")
    if d.frames > MAX_FRAMES or d.rows * d.columns * d.frames * d.samples > MAX_SAMPLES:
        raise ScanError("The image dimensions are out of bounds.")
    if d.bits not in (1, 8, 16, 32, 64):
        raise ScanError("The pixel data has a number of allocated bits that is not read.")


def _native(value_at: int, length: int, d: Dimensions) -> bytes:
    samples = d.rows * d.columns * d.samples
    if d.half_chroma:
        samples = samples * 2 // 3
    if d.bits == 1:
        if (samples * d.frames + 7) // 8 > length:
            raise ScanError("The pixel data is shorter than its dimensions say.")
        if samples % 8:  # frames of one bit may begin inside a byte: told by the whole element (PS3.5 8.1.1)
            return struct.pack("<QQ", value_at, length) * d.frames
        frame_bytes = samples // 8
    else:
        frame_bytes = samples * (d.bits // 8)
    if frame_bytes * d.frames > length:
        raise ScanError("The pixel data is shorter than its dimensions say.")
    return b"".join(struct.pack("<QQ", value_at + n * frame_bytes, frame_bytes) for n in range(d.frames))


def _encapsulated(found: Scan, value_at: int, d: Dimensions) -> bytes:
    basic, fragments, end = _items(found, value_at)
    if d.frames == 1:
        starts = fragments[:1]
    elif len(fragments) == d.frames:
        starts = fragments
    elif len(basic) == d.frames:
        starts = [fragments[0] + offset for offset in basic]
    elif len(d.extended_offsets) == 8 * d.frames:
        starts = [fragments[0] + offset for offset in struct.unpack(f"<{d.frames}Q", d.extended_offsets)]
    else:
        starts = _starts_by_markers(found, fragments, end)
        if len(starts) != d.frames:
            raise ScanError("The frames of the compressed pixel data cannot be told apart.")
    if starts[0] != fragments[0] or not set(starts) <= set(fragments) or sorted(set(starts)) != starts:
        raise ScanError("The table of frames does not point at the fragments of the pixel data.")
    stops = [*starts[1:], end]
    return b"".join(struct.pack("<QQ", start, stop - start) for start, stop in zip(starts, stops, strict=True))


def _starts_by_markers(found: Scan, fragments: list[int], end: int) -> list[int]:
    """Without any table: a JPEG, JPEG-LS or JPEG 2000 frame ends in the fragment that ends with its end marker."""
    starts, begins = list[int](), True
    for start, stop in zip(fragments, [*fragments[1:], end], strict=True):
        if begins:
            starts.append(start)
        begins = b"\xff\xd9" in found.data[max(start + 8, stop - 10) : stop]
    return starts


def _items(found: Scan, at: int) -> tuple[tuple[int, ...], list[int], int]:
    """(basic offset table, where each fragment's item begins, where the last one ends)."""
    data, size = found.data, len(found.data)
    basic: tuple[int, ...] | None = None
    fragments: list[int] = []
    while True:
        head = data[at : at + 8]
        if len(head) < 8:
            raise ScanError("The pixel data is cut off.")
        length = int.from_bytes(head[4:], "little")
        if head[:4] == _SEQUENCE_END:
            break
        if head[:4] != _ITEM or length == _UNDEFINED:
            raise ScanError("The compressed pixel data holds something that is no fragment.")
        if at + 8 + length > size:
            raise ScanError("The pixel data is cut off.")
        if basic is None:
            if length % 4 or length > 4 * MAX_FRAMES:
                raise ScanError("The offset table of the pixel data is damaged.")
            basic = struct.unpack(f"<{length // 4}I", data[at + 8 : at + 8 + length])
        else:
            fragments.append(at)
            if len(fragments) > MAX_FRAGMENTS:
                raise ScanError(f"The pixel data has more than {MAX_FRAGMENTS} fragments.")
        at += 8 + length
    if not fragments:
        raise ScanError("The pixel data has no fragments.")
    return basic or (), fragments, at
