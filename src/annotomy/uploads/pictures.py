"""PNG, JPEG and TIFF pictures of one folder become a series: what no picture says of its place, a geometry form says.

The form comes with the upload (`geometry` in its metadata) or lies beside the pictures as `geometry.json`. Pictures are
decoded in the decoding child, as all pixels of strangers are.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from annotomy.archive.decode import open_picture
from annotomy.dicom.pixels import PixelError
from annotomy.dicom.raw_volume import RawVolume
from annotomy.dicom.volume_series import Told, VolumeError, digest_of, require_size, series_of
from annotomy.errors import BadRequest

FORM_NAME: Final = "geometry.json"
MAX_FORM_BYTES: Final = 16 << 10
MAX_PICTURES: Final = 10_000
"""Slices of one stack; thin ones of a whole body are about 3,000."""
MAX_PICTURE_BYTES: Final = 512 << 20
"""One picture file as sent: a multi-page TIFF of 500 pages of 512 x 512 has 250 MiB."""
MAX_FORM_MM: Final = 1e4
"""No voxel is larger than ten metres, and no origin is farther away than numbers of a scanner are."""

_PLANES: Final = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
}
_VALUE: Final = np.dtype("<f4")


class GeometryForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the sender says of a stack. Also of a volume whose file names no modality: then that alone counts."""

    pixel_spacing_mm: tuple[float, float] | None = None
    """Between rows, then between columns, as PixelSpacing (PS3.3 10.7.1.3)."""
    slice_spacing_mm: float | None = None
    orientation: Literal["axial", "coronal", "sagittal"] | tuple[float, float, float, float, float, float] = "axial"
    """As ImageOrientationPatient: where rows run to, then columns."""
    origin_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Centre of the first pixel of the first slice."""
    modality: Literal["MR", "CT", "PT", "NM", "US", "XA", "OT"] | None = None
    order: Literal["name", "name-reversed"] = "name"
    """Slices follow each other along the normal (rows x columns) in the order of their names; numbers count as numbers."""
    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    """value = slope * pixel + intercept: -1024 where Hounsfield units were stored from 0 on, say."""


def form_of(text: str | bytes) -> GeometryForm:
    """Raises BadRequest."""
    if len(text) > MAX_FORM_BYTES:
        raise BadRequest("The geometry form is too long.")
    try:
        form = msgspec.json.decode(text, type=GeometryForm)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The geometry form is not valid: {error}.") from None
    sizes = [*(form.pixel_spacing_mm or ()), *([form.slice_spacing_mm] if form.slice_spacing_mm is not None else [])]
    if not all(1e-6 < size <= MAX_FORM_MM for size in sizes):
        raise BadRequest("A spacing of the geometry form is no size of a voxel in millimetres.")
    if not all(abs(value) <= MAX_FORM_MM for value in form.origin_lps_mm):
        raise BadRequest("The origin of the geometry form is out of bounds.")
    if form.rescale_slope == 0:
        raise BadRequest("The rescale slope of the geometry form is 0.")
    return form


def in_order(names: list[str], form: GeometryForm) -> list[str]:
    """slice2 before slice10."""
    return sorted(names, key=_natural, reverse=form.order == "name-reversed")


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"(\d{1,18})", name.lower())
    return [(0, int(part), "") if n % 2 else (1, 0, part) for n, part in enumerate(parts)], name


async def stack_pixels(pictures: list[Path], spool: Path) -> tuple[int, int, int]:
    """Decodes the pictures, in this order, into one file of values. Returns columns, rows, slices. Raises VolumeError."""
    size: tuple[int, int] | None = None
    slices = 0
    if len(pictures) > MAX_PICTURES:
        raise VolumeError(f"A stack has more than {MAX_PICTURES} pictures.")
    with spool.open("wb") as file:
        for picture in pictures:
            if picture.stat().st_size > MAX_PICTURE_BYTES:
                raise VolumeError("A picture is larger than is taken in.")
            try:
                pages = await open_picture(await asyncio.to_thread(picture.read_bytes))
            except PixelError as error:
                raise VolumeError(f"A picture of the stack cannot be decoded: {error}") from error
            slices += len(pages)
            rows, columns = pages.shape[1:]
            if size not in (None, (columns, rows)):
                raise VolumeError("The pictures of the stack differ in size.")
            size = (columns, rows)
            require_size((columns, rows, slices))
            await asyncio.to_thread(file.write, pages.astype(_VALUE).tobytes())
    if size is None:
        raise VolumeError("The stack has no picture.")
    return (*size, slices)


def stack_to_dicom(spool: Path, shape: tuple[int, int, int], form: GeometryForm, told: Told) -> Iterator[bytes]:
    """The slices as Part-10 files. Raises VolumeError."""
    with spool.open("rb") as file:
        hasher = digest_of(file)
        hasher.update(msgspec.json.encode(form))
        volume = _Rescaled(RawVolume(file, 0, _VALUE, shape, _affine(form)), form)
        yield from series_of(volume, hasher, told, form="pictures", modality="OT")


def _affine(form: GeometryForm) -> NDArray[np.float64]:
    if form.pixel_spacing_mm is None or form.slice_spacing_mm is None:
        raise VolumeError("The geometry form of a stack names pixel_spacing_mm and slice_spacing_mm.")
    given = _PLANES[form.orientation] if isinstance(form.orientation, str) else form.orientation
    along_row, along_column = np.array(given, np.float64).reshape(2, 3)
    if not np.allclose(
        [along_row @ along_row, along_column @ along_column, along_row @ along_column], [1, 1, 0], atol=1e-3
    ):
        raise VolumeError("The orientation of the geometry form is not two unit vectors at a right angle.")
    affine = np.eye(4)
    affine[:3, 0] = along_row * form.pixel_spacing_mm[1]
    affine[:3, 1] = along_column * form.pixel_spacing_mm[0]
    affine[:3, 2] = np.cross(along_row, along_column) * form.slice_spacing_mm
    affine[:3, 3] = form.origin_lps_mm
    return affine


class _Rescaled:
    def __init__(self, volume: RawVolume, form: GeometryForm) -> None:
        self._volume, self._form = volume, form
        self.shape: tuple[int, ...] = volume.shape
        self.affine_lps: NDArray[Any] = volume.affine_lps

    def slice(self, k: int) -> NDArray[np.float64]:
        return self._volume.slice(k) * self._form.rescale_slope + self._form.rescale_intercept
