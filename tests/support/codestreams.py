"""Compressed frames that say more than they hold, and DICOM files around given pixel data."""

import io
import struct
from typing import Any

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

from tests.support.dicom_files import ct_instance

RLE = "1.2.840.10008.1.2.5"
JPEG2000 = "1.2.840.10008.1.2.4.90"
JPEG_LS = "1.2.840.10008.1.2.4.80"
HTJ2K = "1.2.840.10008.1.2.4.201"
JPEG = "1.2.840.10008.1.2.4.50"


def image(*, syntax: str, frames: list[bytes], **fields: Any) -> bytes:
    """A Part-10 file with these encapsulated frames; `fields` are set by keyword."""
    from pydicom import dcmread

    base = ct_instance(study_instance_uid=generate_uid(), series_instance_uid=generate_uid())
    dataset = dcmread(io.BytesIO(base))
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return with_fields(dataset, **fields)


def with_fields(dataset: Dataset, **fields: Any) -> bytes:
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def jpeg2000(width: int, height: int, *, high_throughput: bool = False) -> bytes:
    """A main header of these dimensions, one tile-part header, and no data (ISO/IEC 15444-1 A)."""
    capability = 0x4000 if high_throughput else 0
    size = struct.pack(">HIIIIIIIIH", capability, width, height, 0, 0, width, height, 0, 0, 1) + b"\x07\x01\x01"
    coding = b"\0\0" + struct.pack(">H", 1) + b"\0" + b"\0\x04\x04" + (b"\x40" if high_throughput else b"\0") + b"\x01"
    quality = b"\x40\x40"
    cap = _marker(0x50, struct.pack(">IH", 0x00020000, 0)) if high_throughput else b""
    main = b"\xff\x4f" + _marker(0x51, size) + cap + _marker(0x52, coding) + _marker(0x5C, quality)
    return main + _marker(0x90, struct.pack(">HIBB", 0, 14, 0, 1)) + b"\xff\x93" + b"\xff\xd9"


def jpeg_ls(width: int, height: int) -> bytes:
    """ISO/IEC 14495-1 C: frame header and scan header, no data."""
    frame = _marker(0xF7, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0")
    return b"\xff\xd8" + frame + _marker(0xDA, b"\x01\x01\0\0\0\0") + b"\0\0\xff\xd9"


def jpeg(width: int, height: int) -> bytes:
    frame = _marker(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0")
    return b"\xff\xd8" + frame + _marker(0xDA, b"\x01\x01\0\0\x3f\0") + b"\0\0\xff\xd9"


def rle(segments: list[bytes], *, offsets: list[int] | None = None) -> bytes:
    """PS3.5 G.5: 16 numbers, then the segments; `offsets` may lie."""
    true, at = list[int](), 64
    for segment in segments:
        true.append(at)
        at += len(segment)
    told = true if offsets is None else offsets
    return struct.pack("<16I", len(segments), *[*told, *[0] * 15][:15]) + b"".join(segments)


def rle_zeros(count: int) -> bytes:
    """PackBits of `count` zero bytes, 128 at a time."""
    segment = b"\x81\0" * (count // 128) + (
        bytes([257 - count % 128, 0]) if count % 128 > 1 else b"\0\0" * (count % 128)
    )
    return segment + b"\0" * (len(segment) % 2)


def _marker(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body
