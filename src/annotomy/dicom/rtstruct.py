"""RT Structure Sets (PS3.3 A.19) of masks: contours along the edges of the pixels.

A contour runs along pixel edges, so that filling it (a pixel belongs to it when its centre does, even-odd rule) gives the
mask again exactly. A hole is joined to its outline by a bridge that is walked twice, as PS3.3 C.8.8.6.3 describes.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage

from annotomy.dicom.seg import Coded, SegIdentity, rgb_of

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""What RT Referenced Study Sequence names, though retired (PS3.3 C.8.8.5)."""

Point = tuple[int, int]
"""(x, y): a corner of pixels. Pixel (row, column) lies between the corners (column, row) and (column + 1, row + 1)."""


@dataclass(frozen=True, slots=True)
class Structure:
    """`slices` are (k, mask) of the slices that hold something, in order."""

    number: int
    label: str
    code: Coded
    color: str
    automatic: bool
    slices: Iterable[tuple[int, NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class ImageReference:
    """The image that shows slice k."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None


def contours(mask: NDArray[np.bool_]) -> list[list[Point]]:
    """Closed outlines of a slice, one for each part (connected by edges), holes joined in."""
    from scipy import ndimage  # heavy, and few processes ever write contours

    labelled: Any = ndimage.label(mask)  # the function's type is a union that depends on its arguments
    parts, count = labelled
    outlines: dict[int, list[Point]] = {}
    holes: dict[int, list[list[Point]]] = {}
    for loop, part in _loops(mask, parts):
        if _doubled_area(loop) > 0:
            outlines[part] = loop
        else:
            holes.setdefault(part, []).append(loop)
    assert len(outlines) == count, "each part has one outline"
    return [_joined(outline, holes.get(part, [])) for part, outline in sorted(outlines.items())]


def _loops(mask: NDArray[np.bool_], parts: NDArray[np.int32]) -> Iterator[tuple[list[Point], int]]:
    """Each closed walk along the edges with the mask on its right (y points down), and the part that it bounds."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    steps: dict[Point, list[tuple[Point, int]]] = {}
    # Neighbour that is empty -> start and direction of the edge towards it.
    for neighbour, start, step in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        for row, column in np.argwhere(inside & ~neighbour).tolist():
            begin = (column + start[0], row + start[1])
            steps.setdefault(begin, []).append((step, int(parts[row, column])))
    while steps:
        begin = next(iter(steps))
        at, loop = begin, list[Point]()
        step, part = _take(steps, at, None)
        last: Point | None = None
        while True:
            if step != last:
                loop.append(at)
            at, last = (at[0] + step[0], at[1] + step[1]), step
            if at == begin:
                break
            step, _ = _take(steps, at, step)
        yield loop, part


def _take(steps: dict[Point, list[tuple[Point, int]]], at: Point, came: Point | None) -> tuple[Point, int]:
    """The next edge; where two parts touch at a corner the right turn, which stays with the same part."""
    choices = steps[at]
    index = 0
    if came is not None and len(choices) > 1:
        right = (-came[1], came[0])
        index = next(n for n, (step, _) in enumerate(choices) if step == right)
    chosen = choices.pop(index)
    if not choices:
        del steps[at]
    return chosen


def _doubled_area(loop: Sequence[Point]) -> int:
    """Above 0 for an outline, below for a hole."""
    return sum(x * v - u * y for (x, y), (u, v) in zip(loop, [*loop[1:], loop[0]], strict=True))


def _joined(outline: list[Point], holes: list[list[Point]]) -> list[Point]:
    joined = outline
    for hole in holes:
        x, y = hole[0]
        near = min(range(len(joined)), key=lambda n: (joined[n][0] - x) ** 2 + (joined[n][1] - y) ** 2)
        joined = [*joined[: near + 1], *hole, hole[0], *joined[near:]]
    return joined


def write_rtstruct(
    *,
    header: Dataset,
    images: Sequence[ImageReference],
    series_instance_uid: str,
    frame_of_reference_uid: str,
    affine_lps: NDArray[np.float64],
    structures: Sequence[Structure],
    identity: SegIdentity,
) -> bytes:
    """A Part-10 file. `header` is one of the images, for patient and study; `images[k]` shows slice k."""
    dataset = _patient_and_study(header)
    _series_and_equipment(dataset, identity)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame_of_reference_uid, ""
    dataset.ReferencedFrameOfReferenceSequence = [
        _frame_of_reference(frame_of_reference_uid, dataset.StudyInstanceUID, series_instance_uid, images)
    ]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for structure in structures:
        roi, contour, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber = contour.ReferencedROINumber = structure.number
        observation.ObservationNumber = observation.ReferencedROINumber = structure.number
        roi.ReferencedFrameOfReferenceUID, roi.ROIName = frame_of_reference_uid, structure.label[:64]
        roi.ROIGenerationAlgorithm = "AUTOMATIC" if structure.automatic else "MANUAL"
        contour.ROIDisplayColor = list(rgb_of(structure.color))
        items = [
            _contour(polygon, k, affine_lps, images[k]) for k, mask in structure.slices for polygon in contours(mask)
        ]
        if items:
            contour.ContourSequence = items
        observation.RTROIIdentificationCodeSequence = [_code(structure.code)]
        observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(contour)
        dataset.RTROIObservationsSequence.append(observation)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _patient_and_study(header: Dataset) -> Dataset:
    dataset = Dataset()
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
        "ReferringPhysicianName", "StudyID",
    ):  # fmt: skip
        value = header.get(keyword)
        setattr(dataset, keyword, "" if value is None else str(value))
    dataset.StudyInstanceUID = header.StudyInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def _series_and_equipment(dataset: Dataset, identity: SegIdentity) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = RTStructureSetStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(identity.sop_instance_uid)
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", identity.series_instance_uid
    dataset.SeriesNumber, dataset.InstanceNumber = identity.series_number, identity.instance_number
    dataset.SeriesDescription, dataset.OperatorsName = identity.description[:64], ""
    dataset.Manufacturer = dataset.ManufacturerModelName = "Annotomy"
    dataset.SoftwareVersions = identity.software_version
    dataset.StructureSetLabel, dataset.StructureSetName = "SEGMENTATION", identity.description[:64]
    dataset.StructureSetDate = dataset.InstanceCreationDate = _day(identity.made_at)
    dataset.StructureSetTime = dataset.InstanceCreationTime = identity.made_at.strftime("%H%M%S")
    dataset.ApprovalStatus = "UNAPPROVED"


def _day(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def _frame_of_reference(
    frame_of_reference_uid: str, study_instance_uid: str, series_instance_uid: str, images: Sequence[ImageReference]
) -> Dataset:
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = frame_of_reference_uid
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_CLASS, study_instance_uid
    series.SeriesInstanceUID = series_instance_uid
    whole = {image.sop_instance_uid: image for image in images}
    series.ContourImageSequence = [
        _image(ImageReference(i.sop_class_uid, i.sop_instance_uid, None)) for i in whole.values()
    ]
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(image: ImageReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    if image.frame_number is not None:
        item.ReferencedFrameNumber = image.frame_number
    return item


def _contour(polygon: Sequence[Point], k: int, affine_lps: NDArray[np.float64], image: ImageReference) -> Dataset:
    corners = np.array(polygon, np.float64) - 0.5  # a pixel's centre is its index
    places = np.column_stack([corners, np.full(len(corners), k), np.ones(len(corners))]) @ affine_lps.T
    item = Dataset()
    item.ContourImageSequence = [_image(image)]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
    item.ContourData = [f"{value:.5f}" for value in places[:, :3].ravel()]
    return item


def _code(code: Coded) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item
