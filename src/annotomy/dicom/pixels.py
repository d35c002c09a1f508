"""Pixels: one frame decoded, brought to modality units, rendered to 8 bits.

Decoding takes untrusted bytes: sizes are checked before anything is allocated, and what runs here on files from outside
runs in the child process of `decoding.py`. No GPL codec is used.
"""

import struct
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from annotomy.dicom.unreadable import UNREADABLE

MAX_FRAME_SAMPLES = 1 << 28
"""rows x columns x samples of one frame: 16384 x 16384, above what scanners and slide tiles make."""


_JPEG_OF_IMAGECODECS = frozenset({"1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
"""JPEG of 12 bits and lossless JPEG: what pydicom's other decoders with a free licence do not read."""
HTJ2K = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})
"""High-throughput JPEG 2000 (PS3.5 A.4.11): lossless, lossless with RPCL options, and either."""


class PixelError(ValueError):
    """The pixels cannot be decoded: damaged, of an unsupported transfer syntax, or too large."""


def decode_frame(dataset: Dataset, frame_index: int) -> NDArray[Any]:
    """Raw values of one frame (from 0): (rows, columns), or (rows, columns, 3) in RGB for colour. Raises PixelError."""
    try:
        samples = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1))
    except UNREADABLE as error:
        raise PixelError("The frame's dimensions are missing or no numbers.") from error
    if not 0 < samples <= MAX_FRAME_SAMPLES:
        raise PixelError("The frame's dimensions are out of bounds.")
    try:
        if str(dataset.file_meta.TransferSyntaxUID) in _JPEG_OF_IMAGECODECS:
            return _jpeg_frame(dataset, frame_index)
        if (
            str(dataset.file_meta.TransferSyntaxUID) in HTJ2K
            and (values := _htj2k_frame(dataset, frame_index)) is not None
        ):
            return values
        if dataset.BitsAllocated == 1 and not UID(dataset.file_meta.TransferSyntaxUID).is_compressed:
            return _bit_frame(dataset, frame_index, samples)
        values = pixel_array(dataset, index=frame_index)
    except (RuntimeError, *UNREADABLE) as error:  # codecs tell their faults by RuntimeError
        raise PixelError(f"The frame cannot be decoded ({type(error).__name__}).") from error
    return np.asarray(values)


def _bit_frame(dataset: Dataset, frame_index: int, samples: int) -> NDArray[Any]:
    """0 and 1. Frames of one bit follow each other without padding, so one may begin inside a byte (PS3.5 8.1.1)."""
    start = frame_index * samples
    held = np.frombuffer(dataset.PixelData, np.uint8)[start // 8 : (start + samples + 7) // 8]
    bits = np.unpackbits(held, bitorder="little")[start % 8 :][:samples]
    if bits.size != samples:
        raise PixelError("The pixel data is cut off.")
    return bits.reshape(int(dataset.Rows), int(dataset.Columns))


def _jpeg_frame(dataset: Dataset, frame_index: int) -> NDArray[Any]:
    stream = get_frame(dataset.PixelData, frame_index, number_of_frames=int(dataset.get("NumberOfFrames", 1) or 1))
    lossless = str(dataset.file_meta.TransferSyntaxUID) != "1.2.840.10008.1.2.4.51"
    bits = int(dataset.BitsStored)
    values = np.asarray(
        imagecodecs.ljpeg_decode(stream) if lossless else imagecodecs.jpeg_decode(stream, bitspersample=max(8, bits))
    )
    if values.shape[:2] != (dataset.Rows, dataset.Columns):
        raise PixelError("The frame's size is not what its header says.")
    if int(dataset.PixelRepresentation) == 1:  # two's complement in BitsStored bits
        shift = values.dtype.itemsize * 8 - bits
        signed = np.left_shift(values, shift).view(values.dtype.str.replace("u", "i"))
        return np.right_shift(signed, shift)
    return values


_SIZ = struct.Struct(">4sHHIIIIIIIIHBBB")
"""The beginning of a codestream: SOC, SIZ and its first component (ISO/IEC 15444-1 A.5.1)."""


def _htj2k_frame(dataset: Dataset, frame_index: int) -> NDArray[Any] | None:
    """By OpenJPH, several times as fast as what pydicom has; None for a codestream that only the latter may read.

    What the codestream says of its size is compared with the header before the decoder makes room for it.
    """
    stream = get_frame(dataset.PixelData, frame_index, number_of_frames=int(dataset.get("NumberOfFrames", 1) or 1))
    if len(stream) < _SIZ.size:
        return None
    mark, _, _, right, bottom, left, top, _, _, _, _, components, depth, across, down = _SIZ.unpack_from(stream)
    signed, bits = depth >> 7, (depth & 0x7F) + 1
    # Colour goes the other way, where its transformations are undone.
    plain = mark == b"\xff\x4f\xff\x51" and components == across == down == 1 and bits <= 16
    if not plain or (bottom - top, right - left) != (int(dataset.Rows), int(dataset.Columns)):
        return None
    if signed != int(dataset.PixelRepresentation) or int(dataset.BitsAllocated) not in (8, 16):
        return None
    values = np.asarray(imagecodecs.htj2k_decode(stream))
    return values.astype(f"{'i' if signed else 'u'}{int(dataset.BitsAllocated) // 8}", copy=False)


def encode_htj2k(values: NDArray[Any]) -> bytes:
    """Lossless, in RPCL order with lengths of tile parts: what both lossless syntaxes take. Raises PixelError.

    Its precision is that of the array, which may be more than BitsStored: values are the same.
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        raise PixelError("Only whole numbers of up to 16 bits go out as HTJ2K.")
    try:
        return bytes(imagecodecs.htj2k_encode(np.ascontiguousarray(values), reversible=True, tlm=True))
    except (RuntimeError, ValueError) as error:
        raise PixelError("The frame cannot be encoded as HTJ2K.") from error


def modality_values(dataset: Dataset, values: NDArray[Any]) -> NDArray[np.float32]:
    """Stored values to modality units (HU for CT) by the rescale or modality LUT (PS3.3 C.11.1)."""
    try:
        return np.asarray(apply_modality_lut(values, dataset), np.float32)
    except UNREADABLE as error:
        raise PixelError(f"The modality look-up table cannot be applied ({type(error).__name__}).") from error


def default_window(dataset: Dataset, values: NDArray[np.float32]) -> tuple[float, float]:
    """(centre, width): the header's first window, else what spans nearly all of the values."""
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre not in (None, "") and width not in (None, ""):
        first = [
            float(v[0] if not isinstance(v, (int, float, str)) and hasattr(v, "__getitem__") else v)
            for v in (centre, width)
        ]
        if first[1] > 0:
            return first[0], first[1]
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    return (low + high) / 2, max(high - low, 1.0)


def render_values(
    dataset: Dataset,
    values: NDArray[Any],
    window: tuple[float, float] | None = None,
    function: Literal["linear", "linear-exact", "sigmoid"] = "linear",
) -> NDArray[np.uint8]:
    """8-bit grey (rows, columns) or RGB (rows, columns, 3), grey windowed by PS3.3 C.11.2.1. Raises PixelError."""
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        try:
            coloured = apply_color_lut(values, dataset)
        except UNREADABLE as error:
            raise PixelError(f"The palette cannot be applied ({type(error).__name__}).") from error
        return np.asarray(coloured >> 8 if coloured.dtype == np.uint16 else coloured, np.uint8)
    if values.ndim == 3:
        if values.dtype != np.uint8:
            values = (values >> max(0, int(dataset.BitsStored) - 8)).astype(np.uint8)
        return values
    units = modality_values(dataset, values)
    centre, width = window or default_window(dataset, units)
    grey = apply_window(units, centre, width, function)
    return np.asarray(255 - grey, np.uint8) if photometric == "MONOCHROME1" else grey


def apply_window(
    values: NDArray[np.float32],
    centre: float,
    width: float,
    function: Literal["linear", "linear-exact", "sigmoid"] = "linear",
) -> NDArray[np.uint8]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "sigmoid":
        scaled = 255 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -80, 80)))
    elif function == "linear-exact":
        scaled = ((values - centre) / width + 0.5) * 255
    else:
        low = centre - 0.5 - (width - 1) / 2
        scaled = (values - low) / max(width - 1, 1e-6) * 255
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
