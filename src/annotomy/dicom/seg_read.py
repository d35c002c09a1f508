"""Reading DICOM Segmentation objects (PS3.3 A.51, C.8.20): frames one at a time, so that a large object stays small.

BINARY, FRACTIONAL and LABELMAP; overlapping and empty segments are as they are in the object.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from annotomy.dicom.geometry import GeometryError, Plane, functional_group, planes_of
from annotomy.dicom.pixels import decode_frame
from annotomy.dicom.seg import ANATOMICAL_STRUCTURE, Coded
from annotomy.dicom.unreadable import UNREADABLE

SEG_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
HALF = 0.5
"""A voxel of a FRACTIONAL segment belongs to it from this share of the maximum on."""
UNKNOWN_KIND: Coded = ("85756007", "SCT", "Tissue")
_NO_COLOR = "#3cb44b"


class SegError(ValueError):
    """The object is no segmentation that can be read; the text says why and names no value of it."""


@dataclass(frozen=True, slots=True)
class SegSegmentRead:
    number: int
    label: str
    code: Coded
    category: Coded
    color: str
    algorithm: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class SegFrame:
    index: int
    segment_number: int | None
    """None in a LABELMAP, whose pixels are segment numbers."""
    plane: Plane | None
    """None when the frame tells no place of its own."""
    source_sop_instance_uid: str
    source_frame_number: int | None


@dataclass(frozen=True, slots=True)
class SegRead:
    study_instance_uid: str
    sop_instance_uid: str
    frame_of_reference_uid: str
    referenced_series_uids: tuple[str, ...]
    form: str
    label: str
    """SeriesDescription, else ContentLabel."""
    segments: tuple[SegSegmentRead, ...]
    frames: tuple[SegFrame, ...]
    dataset: Dataset

    def pixels(self, frame: SegFrame) -> NDArray[Any]:
        """(rows, columns): bool, or segment numbers in a LABELMAP. Raises PixelError."""
        if self.form == "BINARY" and not self.dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            return _bits(self.dataset, frame.index)
        values = decode_frame(self.dataset, frame.index)
        if self.form == "FRACTIONAL":
            return values >= HALF * int(self.dataset.MaximumFractionalValue)
        return values if self.form == "LABELMAP" else values > 0


def read_seg(data: bytes) -> SegRead:
    """Raises SegError. `data` was parsed by the archive before, which bounds what it inflates to."""
    dataset = dcmread(io.BytesIO(data))
    form = str(dataset.get("SegmentationType", ""))
    if str(dataset.get("SOPClassUID", "")) not in SEG_CLASSES or form not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise SegError("The object is no DICOM segmentation.")
    try:
        frames = tuple(_frames(dataset, form))
        segments = tuple(_segment(item) for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0)
    except UNREADABLE as error:
        raise SegError("The object lacks what describes its segments or frames.") from error
    if not segments:
        raise SegError("The object describes no segment.")
    return SegRead(
        study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "") or ""),
        referenced_series_uids=tuple(
            str(item.get("SeriesInstanceUID", "")) for item in dataset.get("ReferencedSeriesSequence") or []
        ),
        form=form,
        label=str(dataset.get("SeriesDescription", "") or dataset.get("ContentLabel", "") or ""),
        segments=segments,
        frames=frames,
        dataset=dataset,
    )


def _frames(dataset: Dataset, form: str) -> Iterator[SegFrame]:
    planes = _planes(dataset)
    count = int(dataset.NumberOfFrames)
    if len(dataset.PerFrameFunctionalGroupsSequence) != count:
        raise SegError("The object describes another number of frames than it has.")
    for index in range(count):
        number: int | None = None
        if form != "LABELMAP":
            identified = functional_group(dataset, index, "SegmentIdentificationSequence")
            if identified is None:
                raise SegError("A frame does not say which segment it shows.")
            number = int(identified.ReferencedSegmentNumber)
        uid, source_frame = _source_of(functional_group(dataset, index, "DerivationImageSequence"))
        yield SegFrame(index, number, planes[index], uid, source_frame)


def _planes(dataset: Dataset) -> list[Plane | None]:
    try:
        return list(planes_of(dataset))
    except GeometryError:
        return [None] * int(dataset.NumberOfFrames)


def _source_of(derivation: Dataset | None) -> tuple[str, int | None]:
    sources = derivation.get("SourceImageSequence") if derivation is not None else None
    if not sources:
        return "", None
    number = sources[0].get("ReferencedFrameNumber")
    first = number[0] if number is not None and not isinstance(number, (int, str)) else number
    return str(sources[0].get("ReferencedSOPInstanceUID", "")), None if first is None else int(first)


def _segment(item: Dataset) -> SegSegmentRead:
    number = int(item.SegmentNumber)
    automatic = str(item.get("SegmentAlgorithmType", "")) in ("AUTOMATIC", "SEMIAUTOMATIC")
    identified = item.get("SegmentationAlgorithmIdentificationSequence")
    if identified:
        name, version = str(identified[0].get("AlgorithmName", "")), str(identified[0].get("AlgorithmVersion", ""))
    else:
        name, version = str(item.get("SegmentAlgorithmName", "")), ""
    return SegSegmentRead(
        number=number,
        label=str(item.get("SegmentLabel", "") or f"Segment {number}"),
        code=coded_of(item.get("SegmentedPropertyTypeCodeSequence")) or UNKNOWN_KIND,
        category=coded_of(item.get("SegmentedPropertyCategoryCodeSequence")) or ANATOMICAL_STRUCTURE,
        color=_color(item.get("RecommendedDisplayCIELabValue")),
        algorithm=(name or "unknown", version or "unknown") if automatic else None,
    )


def coded_of(items: Any) -> Coded | None:
    """Long codes are in attributes of their own (PS3.3 8.1)."""
    if not items:
        return None
    value = next((str(items[0].get(k)) for k in ("CodeValue", "LongCodeValue", "URNCodeValue") if items[0].get(k)), "")
    scheme, meaning = str(items[0].get("CodingSchemeDesignator", "")), str(items[0].get("CodeMeaning", ""))
    return (value, scheme, meaning) if value and scheme and meaning else None


def _color(lab: Any) -> str:
    if not lab or len(lab) != 3:
        return _NO_COLOR
    return "#{:02x}{:02x}{:02x}".format(*hd.color.CIELabColor.from_dicom_value([int(v) for v in lab]).to_rgb(clip=True))


def _bits(dataset: Dataset, frame_index: int) -> NDArray[np.bool_]:
    """Frames of one bit follow each other without padding (PS3.5 8.1.1)."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    size = rows * columns
    first, behind = frame_index * size, (frame_index + 1) * size
    packed = np.frombuffer(dataset.PixelData, np.uint8, count=(behind + 7) // 8 - first // 8, offset=first // 8)
    bits = np.unpackbits(packed, bitorder="little")[first % 8 :][:size]
    return bits.view(np.bool_).reshape(rows, columns)
