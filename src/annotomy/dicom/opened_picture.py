"""The grey values of PNG, JPEG and TIFF files. Runs in the decoding child only: Pillow's codecs are written in C."""

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from annotomy.dicom.pixels import PixelError

MAX_PICTURE_SAMPLES: Final = 1 << 27
"""Of all pages of one file: 512 pages of 512 x 512, or a single one of 11585 x 11585."""
_GREY: Final = {
    "1": np.uint8,
    "L": np.uint8,
    "I;16": np.uint16,
    "I;16L": np.uint16,
    "I;16B": np.uint16,
    "I": np.int32,
    "F": np.float32,
}


def open_picture(data: bytes) -> NDArray[Any]:
    """(pages, rows, columns). A colour picture is taken when it shows grey alone. Raises PixelError before it allocates."""
    Image.MAX_IMAGE_PIXELS = None  # the limit below is ours, and says so
    with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "TIFF"]) as picture:
        pages: int = getattr(picture, "n_frames", 1)
        columns, rows = picture.size
        if columns * rows * pages > MAX_PICTURE_SAMPLES:
            raise PixelError("The picture has more pixels than are taken in.")
        found: list[NDArray[Any]] = []
        for page in ImageSequence.Iterator(picture):
            if page.size != (columns, rows):
                raise PixelError("The pages of the picture differ in size.")
            found.append(_grey(page))
    if any(one.dtype != found[0].dtype for one in found):
        raise PixelError("The pages of the picture differ in form.")
    return np.ascontiguousarray(np.stack(found))


def _grey(page: Image.Image) -> NDArray[Any]:
    if page.mode in _GREY:
        return np.asarray(page).astype(_GREY[page.mode])
    colours = np.asarray(page.convert("RGB"))
    if np.any(colours[..., 0] != colours[..., 1]) or np.any(colours[..., 0] != colours[..., 2]):
        raise PixelError("The picture is in colour; a stack of slices is grey.")
    return colours[..., 0]
