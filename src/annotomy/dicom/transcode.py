"""A data set written anew in an uncompressed transfer syntax, for who takes no other (PS3.5 10).

Pure and slow: called in a thread. Pixel values stay what they are; colour becomes RGB by pixel.
"""

import io
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from annotomy.dicom.part10 import data_set_start
from annotomy.dicom.pixels import PixelError, decode_frame
from annotomy.dicom.unreadable import UNREADABLE

MAX_FILE_BYTES = 256 << 20
"""The file, its decoded pixels and what is written of them are in memory together."""
MAX_PIXEL_BYTES = 512 << 20


class TranscodeError(ValueError):
    """The instance cannot be written uncompressed."""


def to_uncompressed(file: bytes, transfer_syntax_uid: str) -> bytes:
    """The data set (without file head) in Explicit or Implicit VR Little Endian. Raises TranscodeError."""
    if len(file) > MAX_FILE_BYTES:
        raise TranscodeError("too large")
    try:
        dataset = dcmread(io.BytesIO(file))
        if dataset.file_meta.TransferSyntaxUID.is_compressed and "PixelData" in dataset:
            _decode_pixels(dataset)
        implicit = transfer_syntax_uid == ImplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        buffer = io.BytesIO()
        dataset.save_as(buffer, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    except (PixelError, *UNREADABLE) as error:
        raise TranscodeError(type(error).__name__) from error
    written = buffer.getvalue()
    return written[data_set_start(written) :]


def _decode_pixels(dataset: FileDataset) -> None:
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    bits = int(dataset.BitsAllocated)
    samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
    if bits not in (8, 16, 32) or count * samples * bits // 8 > MAX_PIXEL_BYTES:
        raise TranscodeError("the pixels are too large or of an odd depth")
    kind: Any = np.dtype(f"<{'i' if int(dataset.PixelRepresentation) else 'u'}{bits // 8}")
    frames = [np.ascontiguousarray(decode_frame(dataset, index), dtype=kind).tobytes() for index in range(count)]
    if int(dataset.get("SamplesPerPixel", 1)) == 3:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    pixels = b"".join(frames)
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    dataset["PixelData"].is_undefined_length = False
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            delattr(dataset, keyword)
