"""The frame that an annotation lies on, from the archive: its place in the patient, its pixels in modality units.

Headers and pixels are immutable under their blob's address, so that a few are kept in memory: people annotate one image
for minutes. Whether the actor may see the instance is asked anew each time, by `locate`.
"""

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from annotomy.annotations.geometry import FrameGeometry
from annotomy.annotations.measure import FramePixels
from annotomy.archive.decode import FrameSource, decode_frames
from annotomy.archive.retrieve import InstanceLocation, frame_ranges, headers, locate, read_header
from annotomy.db.engine import ReadTx
from annotomy.dicom.pixels import PixelError
from annotomy.errors import NotFound
from annotomy.services import Services

MAX_KEPT_IMAGES = 1000
"""Images whose headers are kept by a process; about 10 KB each."""
MAX_KEPT_PIXELS_BYTES = 64 << 20
"""Decoded frames that are kept by a process: 64 of 512 x 512."""

_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
"""Its pixels may be floating point numbers, which frames are not decoded to here."""
_UNIT_OF_RESCALE_TYPE = {"HU": "[hnsf'U]", "OD": "[OD]", "MGML": "mg/mL"}
_UNIT_OF_PET = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "{counts}", "PROPCPS": "{propcps}", "CPS": "{counts}/s"}


@dataclass(frozen=True, slots=True)
class Image:
    """One instance of the archive that has frames."""

    header: FileDataset
    source: FrameSource

    @property
    def location(self) -> InstanceLocation:
        return self.source.at


_images: "OrderedDict[str, Image]" = OrderedDict()
_pixels: "OrderedDict[tuple[str, int], FramePixels]" = OrderedDict()


async def find_image(
    tx: ReadTx, study_instance_uid: str, sop_instance_uid: str
) -> tuple[InstanceLocation | None, Image | None]:
    """Where the instance lies, if the actor sees it here - in this study, or else in another - and the image, if it is one."""
    try:
        found = await locate(tx, sop_instance_uid=sop_instance_uid)
    except NotFound:
        return None, None
    location = min(found, key=lambda at: (at.study_instance_uid != study_instance_uid, at.id))
    if location.number_of_frames == 0:
        return location, None
    known = _images.get(location.blob_address)
    if known is None or known.location != location:
        [compressed] = await headers(tx, [location])
        header = await asyncio.to_thread(read_header, compressed)
        known = Image(header, FrameSource(location, compressed, await frame_ranges(tx, location)))
        _images[location.blob_address] = known
        if len(_images) > MAX_KEPT_IMAGES:
            _images.popitem(last=False)
    return location, known


def frame_geometry(image: Image, frame_index: int) -> FrameGeometry:
    """As the header tells; what is missing or contradicts itself is left out (PS3.3 C.7.6.2, C.7.6.16.2)."""
    header = image.header
    measures = _group(header, frame_index, "PixelMeasuresSequence")
    spacing = _numbers(measures.get("PixelSpacing"), 2)
    if spacing is None or min(spacing) <= 0:
        return FrameGeometry(int(header.Rows), int(header.Columns))
    position = _numbers(_group(header, frame_index, "PlanePositionSequence").get("ImagePositionPatient"), 3)
    turned = _numbers(_group(header, frame_index, "PlaneOrientationSequence").get("ImageOrientationPatient"), 6)
    placed = position is not None and turned is not None and _is_orthonormal(turned)
    thickness = _numbers(measures.get("SliceThickness"), 1)
    return FrameGeometry(
        rows=int(header.Rows),
        columns=int(header.Columns),
        row_spacing_mm=spacing[0],
        column_spacing_mm=spacing[1],
        position_lps_mm=(position[0], position[1], position[2]) if position is not None and placed else None,
        orientation=turned if placed else None,
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
    )


async def frame_pixels(services: Services, image: Image, frame_index: int) -> FramePixels | None:
    """Grey values in modality units; None for colour, and where the pixels cannot be decoded."""
    key = (image.location.blob_address, frame_index)
    known = _pixels.get(key)
    if known is not None:
        _pixels.move_to_end(key)
        return known
    header = image.header
    if image.location.sop_class_uid == _PARAMETRIC_MAP or int(header.get("SamplesPerPixel", 1)) != 1:
        return None
    if str(header.get("PhotometricInterpretation", "")) == "PALETTE COLOR":
        return None
    group = _group(header, frame_index, "PixelValueTransformationSequence")
    try:
        [values] = await decode_frames(services, image.source, [frame_index], units=group is header)
    except PixelError:
        return None
    if group is not header:  # enhanced images keep the rescale with the frame (PS3.3 C.7.6.16.2.9)
        values = values * float(group.get("RescaleSlope", 1)) + float(group.get("RescaleIntercept", 0))
    found = FramePixels(np.asarray(values, np.float32), _unit(header, group))
    _pixels[key] = found
    while sum(one.values.nbytes for one in _pixels.values()) > MAX_KEPT_PIXELS_BYTES:
        _pixels.popitem(last=False)
    return found


def _group(header: Dataset, frame_index: int, name: str) -> Dataset:
    """The frame's item of a functional group, else the shared one, else the header itself (PS3.3 C.7.6.16)."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    for groups in (per_frame[frame_index] if per_frame and frame_index < len(per_frame) else None,
                   *(header.get("SharedFunctionalGroupsSequence") or ())):  # fmt: skip
        if groups is not None and groups.get(name):
            return groups[name][0]
    # A classic multi-frame image tells one position for all of its frames, which is the place of none.
    many = int(header.get("NumberOfFrames", 1) or 1) > 1
    return Dataset() if many and name == "PlanePositionSequence" else header


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    try:
        found = tuple(float(one) for one in (value if count > 1 else [value]))
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def _is_orthonormal(directions: tuple[float, ...]) -> bool:
    row, column = directions[:3], directions[3:]
    return (
        abs(math.hypot(*row) - 1) < 1e-3
        and abs(math.hypot(*column) - 1) < 1e-3
        and abs(sum(a * b for a, b in zip(row, column, strict=True))) < 1e-3
    )


def _unit(header: Dataset, rescale: Dataset) -> str:
    """UCUM of the values after the modality transformation (PS3.3 C.11.1.1.2); `1` where the header does not say."""
    kind = str(rescale.get("RescaleType") or "")
    if not kind and str(header.get("Modality", "")) == "CT":
        kind = "HU"  # PS3.3 C.8.2.1.1.2: the output units of CT are Hounsfield units where no type says otherwise
    return _UNIT_OF_RESCALE_TYPE.get(kind) or _UNIT_OF_PET.get(str(header.get("Units", "")), "1")
