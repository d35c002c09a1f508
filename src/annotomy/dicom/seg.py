"""DICOM Segmentation objects (PS3.3 A.51), written with highdicom from the headers of the images that they segment.

BINARY keeps overlapping and empty segments. LABELMAP (supplement 243) holds one segment for each voxel.
"""

import io
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

Coded = tuple[str, str, str]
"""(value, scheme, meaning)"""

ANATOMICAL_STRUCTURE: Coded = ("123037004", "SCT", "Anatomical Structure")
_ARTIFICIAL_INTELLIGENCE = Code("113110", "DCM", "Artificial Intelligence")
_LABEL_CHARACTERS = 64
"""LO (PS3.5 6.2)."""
_MANUFACTURER = "Annotomy"
_TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes that a SEG takes from its images and that may be empty, but not missing."""


@dataclass(frozen=True, slots=True)
class SegSegment:
    """What a SEG says of one segment. The segments of an object are numbered 1, 2, ... in their order."""

    label: str
    category: Coded
    kind: Coded
    color: str
    """#rrggbb"""
    algorithm: tuple[str, str] | None = None
    """(name, version) of the model; None: drawn by a person."""
    tracking_id: str | None = None
    tracking_uid: str | None = None


@dataclass(frozen=True, slots=True)
class SegIdentity:
    """UIDs and words of a SEG. The caller derives the UIDs, so that the same version makes the same object."""

    series_instance_uid: str
    sop_instance_uid: str
    series_number: int
    instance_number: int
    description: str
    made_at: datetime
    software_version: str
    creator: str = ""


def write_seg(
    *,
    headers: Sequence[Dataset],
    frame_numbers: Sequence[int | None],
    frame_of_reference_uid: str,
    spacing_between_slices_mm: float,
    pixels: NDArray[Any],
    segments: Sequence[SegSegment],
    identity: SegIdentity,
    form: Literal["BINARY", "LABELMAP"] = "BINARY",
) -> bytes:
    """A Part-10 file.

    `headers` are the source instances in slice order, or the one multi-frame instance, whose frame of slice k is
    `frame_numbers[k]`. `pixels` is a label map (k, j, i) of 1, 2, ..., or for segments that overlap (k, j, i, segment).
    """
    sources = [_source(header, frame_of_reference_uid) for header in headers]
    if frame_numbers[0] is not None:
        order = np.empty(len(frame_numbers), np.intp)
        order[[number - 1 for number in frame_numbers if number is not None]] = np.arange(len(frame_numbers))
        pixels = pixels[order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values of the source are kept as they are
        seg = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=form,
            segment_descriptions=[_description(n, segment) for n, segment in enumerate(segments, start=1)],
            series_instance_uid=identity.series_instance_uid,
            series_number=identity.series_number,
            sop_instance_uid=identity.sop_instance_uid,
            instance_number=identity.instance_number,
            manufacturer=_MANUFACTURER,
            manufacturer_model_name=_MANUFACTURER,
            software_versions=identity.software_version,
            device_serial_number="1",
            content_label="SEGMENTATION",
            content_description=identity.description[:_LABEL_CHARACTERS],
            content_creator_name=identity.creator or None,
            omit_empty_frames=True,
            pixel_measures=_measures(sources[0], spacing_between_slices_mm),
            series_description=identity.description[:_LABEL_CHARACTERS],
        )
        _tell_spacing(seg, spacing_between_slices_mm)
        _tell_time(seg, identity.made_at)
        buffer = io.BytesIO()
        seg.save_as(buffer)
    return buffer.getvalue()


def _source(header: Dataset, frame_of_reference_uid: str) -> Dataset:
    """A header as highdicom wants it: complete, and in Unicode, so that any label can be written."""
    source = deepcopy(header)
    source.decode()
    source.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TYPE_2:
        if source.get(keyword) is None:
            setattr(source, keyword, "")
    if not source.get("FrameOfReferenceUID"):
        source.FrameOfReferenceUID = frame_of_reference_uid
    if "SOPClassUID" not in source:
        source.SOPClassUID = UID(str(source.file_meta.MediaStorageSOPClassUID))
    if "PerFrameFunctionalGroupsSequence" not in source and not source.get("SliceThickness"):
        source.SliceThickness = None
    return source


def _measures(source: Dataset, spacing_between_slices_mm: float) -> hd.PixelMeasuresSequence:
    if "SharedFunctionalGroupsSequence" in source:
        shared = source.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
        own = source.PerFrameFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
        spacing = (own or shared)[0].PixelSpacing
    else:
        spacing = source.PixelSpacing
    between = float(f"{spacing_between_slices_mm:.8g}")
    return hd.PixelMeasuresSequence(
        [float(v) for v in spacing], slice_thickness=between, spacing_between_slices=between
    )


def _tell_spacing(seg: Dataset, spacing_between_slices_mm: float) -> None:
    """The distance of the slices by their positions: the source's nominal thickness is often another."""
    shared = seg.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence")
    for item in [shared] if shared else [f.PixelMeasuresSequence for f in seg.PerFrameFunctionalGroupsSequence]:
        item[0].SpacingBetweenSlices = item[0].SliceThickness = f"{spacing_between_slices_mm:.8g}"


def _tell_time(seg: Dataset, made_at: datetime) -> None:
    """The same segmentation makes the same bytes, whenever they are made."""
    seg.ContentDate = seg.InstanceCreationDate = seg.SeriesDate = made_at.strftime("%Y%m%d")
    seg.ContentTime = seg.InstanceCreationTime = seg.SeriesTime = made_at.strftime("%H%M%S")


def _description(number: int, segment: SegSegment) -> hd.seg.SegmentDescription:
    algorithm = segment.algorithm
    automatic = algorithm is not None
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:_LABEL_CHARACTERS],
        segmented_property_category=Code(*segment.category),
        segmented_property_type=Code(*segment.kind),
        algorithm_type="AUTOMATIC" if automatic else "MANUAL",
        algorithm_identification=(
            hd.AlgorithmIdentificationSequence(
                name=algorithm[0][:_LABEL_CHARACTERS],
                family=_ARTIFICIAL_INTELLIGENCE,
                version=algorithm[1][:_LABEL_CHARACTERS],
            )
            if algorithm is not None
            else None
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        display_color=hd.color.CIELabColor.from_rgb(*rgb_of(segment.color)),
    )


def rgb_of(color: str) -> tuple[int, int, int]:
    """#rrggbb"""
    value = int(color.removeprefix("#"), 16)
    return value >> 16 & 255, value >> 8 & 255, value & 255
