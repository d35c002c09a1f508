"""The frame that an annotation lies on, from the archive: its place in the patient, its pixels in modality units.

Headers and pixels are immutable under their blob's address, so that a few are kept in memory: people annotate one image
for minutes. Whether the actor may see the instance is asked anew each time, by `locate`.
"""

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from annotomy.annotations.geometry import FrameGeometry
from annotomy.annotations.measure import FramePixels
from annotomy.archive.retrieve import (
    InstanceLocation,
    frame_ranges,
    headers,
    locate,
    read_dataset,
    read_header,
)
from annotomy.db.engine import ReadTx
from annotomy.dicom.pixels import PixelError, decode_frame, modality_values
from annotomy.errors import NotFound
from annotomy.services import Services

MAX_KEPT_IMAGES = 1000
"""Images whose headers are kept by a process; about 10 KB each."""
MAX_KEPT_PIXELS_BYTES = 64 << 20
"""Decoded frames that are kept by a process: 64 of 512 x 512."""

_PIXEL_DESCRIPTION = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence",
)  # fmt: skip
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
"""Its pixels may be floating point numbers, which frames are not decoded to here."""
_UNIT_OF_RESCALE_TYPE = {"HU": "[hnsf'U]", "OD": "[OD]", "MGML": "mg/mL"}
_UNIT_OF_PET = {"BQML": "Bq/ml", "GML": "g/ml", "CNTS": "{counts}", "PROPCPS": "{propcps}", "CPS": "{counts}/s"}


@dataclass(frozen=True, slots=True)
class Image:
    """One instance of the archive that has frames."""

    location: InstanceLocation
    header: FileDataset
    ranges: list[tuple[int, int]]
    """Where each frame lies in the blob; empty when only the whole file tells."""


_headers: "OrderedDict[str, tuple[FileDataset, list[tuple[int, int]]]]" = OrderedDict()
_pixels: "OrderedDict[tuple[str, int], FramePixels]" = OrderedDict()


async def find_image(tx: ReadTx, sop_instance_uid: str) -> tuple[InstanceLocation | None, Image | None]:
    """Where the instance lies, if the actor sees it here, and the image, if it is one."""
    try:
        [location] = await locate(tx, sop_instance_uid=sop_instance_uid)
    except NotFound:
        return None, None
    if location.number_of_frames == 0:
        return location, None
    kept = _headers.get(location.blob_address)
    if kept is None:
        [compressed] = await headers(tx, [location])
        kept = (await asyncio.to_thread(read_header, compressed), await frame_ranges(tx, location))
        _headers[location.blob_address] = kept
        if len(_headers) > MAX_KEPT_IMAGES:
            _headers.popitem(last=False)
    return location, Image(location, *kept)


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
    if (
        int(image.header.get("SamplesPerPixel", 1)) != 1
        or str(image.header.PhotometricInterpretation) == "PALETTE COLOR"
    ):
        return None
    dataset, index = await _frame_dataset(services, image, frame_index)
    try:
        values = await asyncio.to_thread(lambda: modality_values(dataset, decode_frame(dataset, index)))
    except PixelError:
        return None
    found = FramePixels(values, _unit(image.header, dataset))
    _pixels[key] = found
    while sum(one.values.nbytes for one in _pixels.values()) > MAX_KEPT_PIXELS_BYTES:
        _pixels.popitem(last=False)
    return found


async def _frame_dataset(services: Services, image: Image, frame_index: int) -> tuple[Dataset, int]:
    """What decodes to the one frame, and the frame's index in it: only its own bytes are read where that can be."""
    location, header = image.location, image.header
    if not image.ranges or int(header.BitsAllocated) % 8:
        return _described(header, await read_dataset(services, location), frame_index), frame_index
    data = await services.blobs.read(location.blob_address, *image.ranges[frame_index])
    dataset = Dataset()
    dataset.file_meta = header.file_meta
    for keyword in _PIXEL_DESCRIPTION:
        if keyword in header:
            dataset[keyword] = header[keyword]
    dataset.NumberOfFrames = 1
    dataset.PixelData = encapsulate([_fragments(data)]) if UID(location.transfer_syntax_uid).is_compressed else data
    dataset["PixelData"].VR = "OB" if UID(location.transfer_syntax_uid).is_compressed else "OW"
    return _described(header, dataset, frame_index), 0


def _described(header: Dataset, dataset: Dataset, frame_index: int) -> Dataset:
    """With the frame's own rescale, which enhanced images keep in a functional group (PS3.3 C.7.6.16.2.9)."""
    group = _group(header, frame_index, "PixelValueTransformationSequence")
    if group is not header:
        for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
            if keyword in group:
                dataset[keyword] = group[keyword]
    return dataset


def _fragments(frame: bytes) -> bytes:
    """The fragments of an encapsulated frame joined (PS3.5 A.4)."""
    at, pieces = 0, list[bytes]()
    while at + 8 <= len(frame) and frame[at : at + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(frame[at + 4 : at + 8], "little")
        pieces.append(frame[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(pieces)


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


def _unit(header: Dataset, dataset: Dataset) -> str:
    """UCUM of the values after the modality transformation (PS3.3 C.11.1.1.2); `1` where the header does not say."""
    kind = str(dataset.get("RescaleType") or "")
    if not kind and str(header.get("Modality", "")) == "CT":
        kind = "HU"  # PS3.3 C.8.2.1.1.2: the output units of CT are Hounsfield units where no type says otherwise
    return _UNIT_OF_RESCALE_TYPE.get(kind) or _UNIT_OF_PET.get(str(header.get("Units", "")), "1")
