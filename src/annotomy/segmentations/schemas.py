"""What /api/v1/segmentations answers and takes."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

State = Literal["proposal", "draft", "submitted", "approved", "rejected"]
Form = Literal["seg", "labelmap-seg", "fractional-seg", "nifti", "nrrd", "rtstruct", "png"]


class Code(msgspec.Struct, frozen=True):
    """A coded concept, as in DICOM: `{"value": "40238009", "scheme": "SCT", "meaning": "Hippocampus"}`."""

    value: str
    scheme: str
    meaning: str


class SegmentStatistics(msgspec.Struct, frozen=True):
    voxels: int
    volume_mm3: float
    centroid_lps_mm: list[float] | None
    """null for an empty segment."""
    bounding_box: dict[str, Any] | None
    """First and last voxel (k, j, i) and the box of their centres in LPS mm; null for an empty segment."""


class Algorithm(msgspec.Struct, frozen=True):
    name: str
    version: str


class Segment(msgspec.Struct, frozen=True):
    segment_number: int
    label: str
    code: Code
    category: Code
    algorithm: Algorithm | None
    """The model that made the segment; null: drawn by a person."""
    color: str
    statistics: SegmentStatistics


class Segmentation(msgspec.Struct, frozen=True):
    id: UUID
    project_id: UUID
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    label: str
    state: State
    version: int
    prediction_id: UUID | None
    created_by: UUID
    created_at: datetime
    updated_at: datetime
    shape_kji: list[int]
    affine_lps: list[float]
    """4x4 row by row, from voxel (i, j, k, 1) to LPS mm."""
    sop_instance_uid: str | None
    """The DICOM SEG of this version in the archive; null where none was written."""
    segments: list[Segment]


class Version(msgspec.Struct, frozen=True):
    version: int
    label: str
    state: State
    deleted: bool
    """The version that says the segmentation is gone; its masks are those of the one before."""
    why: str
    created_by: UUID
    created_by_name: str
    created_at: datetime
    sop_instance_uid: str | None
    segments: list[Segment]


class StatisticsAnswer(msgspec.Struct, frozen=True):
    version: int
    voxel_volume_mm3: float
    segments: dict[int, SegmentStatistics]
    """By segment number."""


class DescribedSegment(msgspec.Struct, frozen=True):
    """How a segment is called. What is left out comes from the file, or from what is known of the segment."""

    segment_number: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    code: Code | None = None
    category: Code | None = None
    color: Annotated[str, msgspec.Meta(pattern="^#[0-9a-fA-F]{6}$")] | None = None


class ImportMetadata(msgspec.Struct, frozen=True):
    """The `metadata` part of an import."""

    project_id: UUID
    study_instance_uid: str
    series_instance_uid: str
    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
    segments: list[DescribedSegment] = []


class ChangedSegmentation(msgspec.Struct, frozen=True):
    """A JSON merge patch; what is left out stays."""

    state: State | None = None
    label: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    why: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class RestoredVersion(msgspec.Struct, frozen=True):
    version: Annotated[int, msgspec.Meta(ge=1)]
    why: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class ArchivedSegmentation(msgspec.Struct, frozen=True):
    """A DICOM SEG that the archive holds."""

    project_id: UUID
    sop_instance_uid: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
