"""Masks as NIfTI-1: the label map on the series' own grid, its affine turned from LPS to RAS.

Overlapping segments are layers along the fourth axis. A comment extension names the segments as JSON, which other
programs skip.
"""

import gzip
import io
import json
import zlib
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Extension
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from annotomy.segmentations.interchange import MAX_FILE_BYTES, MAX_LAYERS, FileSegment, FormatError, LabelGrid

MEDIA_TYPE = "application/gzip"
SUFFIX = ".nii.gz"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_COMMENT = 6
"""Extension code of plain text (NIfTI-1.1)."""
_GZIP_LEVEL = 6


def write_nifti(grid: LabelGrid) -> bytes:
    axes = [np.transpose(layer, (2, 1, 0)) for layer in grid.layers]
    values = axes[0] if len(axes) == 1 else np.stack(axes, axis=-1)
    image: Any = nib.Nifti1Image(values, _LPS_TO_RAS @ grid.affine_lps)
    image.header.set_xyzt_units("mm")
    image.header["intent_code"] = 1002  # NIFTI_INTENT_LABEL
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    text = json.dumps({"segments": [_described(segment) for segment in grid.segments]})
    image.header.extensions.append(Nifti1Extension(_COMMENT, text.encode()))
    return gzip.compress(image.to_bytes(), _GZIP_LEVEL, mtime=0)


def read_nifti(data: bytes) -> LabelGrid:
    """Raises FormatError."""
    if data[:2] == b"\x1f\x8b":
        data = _inflated(data)
    form: Any = nib.Nifti2Image if data[4:8] in (b"n+2\0", b"ni2\0") else nib.Nifti1Image
    try:
        image = form.from_bytes(data)
        expected = int(np.prod(np.array(image.shape, dtype=object), initial=1)) * image.get_data_dtype().itemsize
        if not 0 < expected <= len(data):  # before anything of this size is allocated
            raise FormatError("The NIfTI's data is cut off.")
        values = np.asarray(image.dataobj)
        affine = np.asarray(image.affine, np.float64)
    except (HeaderDataError, ImageFileError, WrapStructError, ValueError, OSError, EOFError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError("The file cannot be read as NIfTI.") from error
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or not 1 <= values.shape[3] <= MAX_LAYERS:
        raise FormatError("A NIfTI of masks has three dimensions, or four for segments that overlap.")
    layers = tuple(np.transpose(values[..., n], (2, 1, 0)) for n in range(values.shape[3]))
    return LabelGrid(layers, _LPS_TO_RAS @ affine, _described_segments(image))


def _inflated(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            plain = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError("The gzip stream is damaged.") from error
    if len(plain) > MAX_FILE_BYTES:
        raise FormatError("The file is larger than is taken in.")
    return plain


def _described(segment: FileSegment) -> dict[str, Any]:
    return {
        "segment_number": segment.number,
        "label": segment.label,
        "code": list(segment.code),
        "category": list(segment.category),
        "color": segment.color,
        "algorithm": None if segment.algorithm is None else list(segment.algorithm),
    }


def _described_segments(image: Any) -> tuple[FileSegment, ...]:
    """The segments of our own comment; none for any other file."""
    for extension in image.header.extensions:
        if extension.get_code() != _COMMENT:
            continue
        try:
            content: Any = extension.get_content()
            told = json.loads(content.decode() if isinstance(content, bytes) else str(content))
            return tuple(
                FileSegment(
                    int(one["segment_number"]),
                    str(one["label"]),
                    _coded(one["code"]),
                    _coded(one["category"]),
                    str(one["color"]),
                    (str(one["algorithm"][0]), str(one["algorithm"][1])) if one["algorithm"] else None,
                )
                for one in told["segments"]
            )
        except (ValueError, KeyError, TypeError, IndexError):
            continue
    return ()


def _coded(value: Any) -> tuple[str, str, str]:
    code, scheme, meaning = value
    return str(code), str(scheme), str(meaning)
