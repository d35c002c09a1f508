"""Reading RT Structure Sets (PS3.3 A.19): structures with their contours in patient space, as they are in the object."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from annotomy.dicom.seg import ANATOMICAL_STRUCTURE, Coded
from annotomy.dicom.seg_read import UNKNOWN_KIND, coded_of
from annotomy.dicom.unreadable import UNREADABLE

RTSTRUCT_CLASS = str(RTStructureSetStorage)
MAX_STRUCTURES = 1024
MAX_CONTOURS = 200_000
"""Of one object: 400 structures on 500 slices."""
MAX_NUMBER = 65535
_NO_COLOR = "#3cb44b"
_LABEL_CHARACTERS = 64


class StructureSetError(ValueError):
    """The object is no structure set that can be read; the text says why and names no value of it."""


@dataclass(frozen=True, slots=True)
class Contour:
    kind: str
    """CLOSED_PLANAR, CLOSEDPLANAR_XOR, POINT, OPEN_PLANAR, OPEN_NONPLANAR."""
    points_lps_mm: NDArray[np.float64]
    """(n, 3)"""
    images: tuple[tuple[str, int | None], ...]
    """SOP Instance UID and frame of the images that it was drawn on, as far as they are named."""


@dataclass(frozen=True, slots=True)
class StructureRead:
    number: int
    label: str
    code: Coded
    category: Coded
    color: str
    automatic: bool
    frame_of_reference_uid: str
    contours: tuple[Contour, ...]


@dataclass(frozen=True, slots=True)
class StructureSetRead:
    study_instance_uid: str
    sop_instance_uid: str
    referenced_series_uids: tuple[str, ...]
    label: str
    structures: tuple[StructureRead, ...]


def read_rtstruct(data: bytes) -> StructureSetRead:
    """Raises StructureSetError. `data` was parsed by the archive before, which bounds what it inflates to."""
    dataset = dcmread(io.BytesIO(data))
    if str(dataset.get("SOPClassUID", "")) != RTSTRUCT_CLASS:
        raise StructureSetError("The object is no RT Structure Set.")
    try:
        structures = tuple(_structures(dataset))
        series = tuple(dict.fromkeys(_referenced_series(dataset)))
    except StructureSetError:
        raise
    except UNREADABLE as error:
        raise StructureSetError("The object lacks what describes its structures or contours.") from error
    if not structures:
        raise StructureSetError("The object describes no structure.")
    return StructureSetRead(
        study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        referenced_series_uids=series,
        label=str(dataset.get("SeriesDescription", "") or dataset.get("StructureSetLabel", "") or ""),
        structures=structures,
    )


def _structures(dataset: Dataset) -> Iterator[StructureRead]:
    rois = list(dataset.get("StructureSetROISequence") or [])
    if len(rois) > MAX_STRUCTURES:
        raise StructureSetError("The object has more structures than are taken in.")
    drawn = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or []}
    observed = {int(item.ReferencedROINumber): item for item in dataset.get("RTROIObservationsSequence") or []}
    own = [int(roi.ROINumber) for roi in rois]
    if len(set(own)) < len(own):
        raise StructureSetError("Two structures have the same number.")
    if sum(len(item.get("ContourSequence") or []) for item in drawn.values()) > MAX_CONTOURS:
        raise StructureSetError("The object has more contours than are taken in.")
    # Numbers that no segment can have: all are counted anew, in their order.
    usable = all(1 <= number <= MAX_NUMBER for number in own)
    for n, roi in enumerate(rois, start=1):
        contour, observation = drawn.get(int(roi.ROINumber)), observed.get(int(roi.ROINumber))
        identified = None if observation is None else coded_of(observation.get("RTROIIdentificationCodeSequence"))
        number = int(roi.ROINumber) if usable else n
        yield StructureRead(
            number=number,
            label=(str(roi.get("ROIName", "") or "").strip() or f"Structure {number}")[:_LABEL_CHARACTERS],
            code=identified or UNKNOWN_KIND,
            category=ANATOMICAL_STRUCTURE,
            color=_color(None if contour is None else contour.get("ROIDisplayColor")),
            automatic=str(roi.get("ROIGenerationAlgorithm", "")) in ("AUTOMATIC", "SEMIAUTOMATIC"),
            frame_of_reference_uid=str(roi.get("ReferencedFrameOfReferenceUID", "") or ""),
            contours=() if contour is None else tuple(_contour(item) for item in contour.get("ContourSequence") or []),
        )


def _contour(item: Dataset) -> Contour:
    values = np.array([float(v) for v in _listed(item.get("ContourData"))], np.float64)
    if values.size == 0 or values.size % 3 or not np.all(np.isfinite(values)):
        raise StructureSetError("A contour's points are no triples of numbers.")
    images = tuple(
        (str(image.get("ReferencedSOPInstanceUID", "")), _first_number(image.get("ReferencedFrameNumber")))
        for image in item.get("ContourImageSequence") or []
    )
    return Contour(str(item.get("ContourGeometricType", "")), values.reshape(-1, 3), images)


def _listed(value: Any) -> list[Any]:
    """One number alone comes without a list."""
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


def _first_number(value: Any) -> int | None:
    numbers = _listed(value)
    return int(numbers[0]) if numbers else None


def _referenced_series(dataset: Dataset) -> Iterator[str]:
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                yield str(series.get("SeriesInstanceUID", ""))


def _color(value: Any) -> str:
    channels = [int(v) for v in _listed(value)]
    if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
        return _NO_COLOR
    return "#{:02x}{:02x}{:02x}".format(*channels)
