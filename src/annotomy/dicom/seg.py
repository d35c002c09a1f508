"""DICOM Segmentation objects (PS3.3 A.51, A.51-LM) of any number of frames, written from the headers of their images.

BINARY and FRACTIONAL keep overlapping and empty segments; LABELMAP (supplement 243) holds one segment for each voxel. The
functional groups of the frames (PS3.3 C.7.6.16.2) are encoded here: objects for thousands of frames would be most of the
time. The same version of a segmentation makes the same bytes, whenever they are made.
"""

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import NAMESPACE_OID, uuid5

import highdicom as hd
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from annotomy.dicom.geometry import Plane, planes_of

Coded = tuple[str, str, str]
"""(value, scheme, meaning)"""
SegForm = Literal["BINARY", "FRACTIONAL", "LABELMAP"]

ANATOMICAL_STRUCTURE: Coded = ("123037004", "SCT", "Anatomical Structure")
FRACTIONAL_MAXIMUM = 255
"""What a voxel of a FRACTIONAL segment has that belongs to it wholly."""
MAX_PIXEL_BYTES = (1 << 32) - 2
"""An element of defined length (PS3.5 7.1.2)."""
_ARTIFICIAL_INTELLIGENCE: Coded = ("113110", "DCM", "Artificial Intelligence")
_BACKGROUND: Coded = ("125040", "DCM", "Background")
_SEGMENTATION: Coded = ("113076", "DCM", "Segmentation")
_SOURCE_IMAGE: Coded = ("121322", "DCM", "Source image for image processing operation")
_CLASSES = {
    "BINARY": "1.2.840.10008.5.1.4.1.1.66.4",
    "FRACTIONAL": "1.2.840.10008.5.1.4.1.1.66.4",
    "LABELMAP": "1.2.840.10008.5.1.4.1.1.66.7",
}
_LABEL_CHARACTERS = 64
"""LO (PS3.5 6.2)."""
_MANUFACTURER = "Annotomy"
_TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes that a SEG takes from its images and that may be empty, but not missing."""
_TYPE_3 = (
    "StudyDescription", "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)  # fmt: skip
"""The same, where the images have them: who the patient is, and that it was hidden."""


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


@dataclass(frozen=True, slots=True)
class SegFrames:
    """The frames as (segment_number, k) in the order of their pixels; segment_number counts from 1, and is 0 in a LABELMAP."""

    order: Sequence[tuple[int, int]]
    pixels: Sequence[bytes | memoryview]
    """What is behind each other the value of PixelData: bits lowest first, or one byte (two: `wide`) for each voxel."""
    overlap: bool
    wide: bool = False


def write_seg(
    *,
    headers: Sequence[Dataset],
    frame_numbers: Sequence[int | None],
    frame_of_reference_uid: str,
    spacing_between_slices_mm: float,
    frames: SegFrames,
    segments: Sequence[SegSegment],
    identity: SegIdentity,
    form: SegForm = "BINARY",
) -> bytes:
    """A Part-10 file.

    `headers` are the source instances in slice order, or the one multi-frame instance, whose frame of slice k is
    `frame_numbers[k]`.
    """
    sources = _sources(headers, frame_numbers)
    dataset = _patient_and_study(headers[0])
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame_of_reference_uid, ""
    _series_and_equipment(dataset, identity, form)
    _references(dataset, headers)
    _image(dataset, sources[0].plane, frames, form)
    _dimensions(dataset, identity, form)
    descriptions = [_description(n, segment) for n, segment in enumerate(segments, start=1)]
    dataset.SegmentSequence = [*([_background()] if form == "LABELMAP" else []), *descriptions]
    dataset.SharedFunctionalGroupsSequence = [_shared(sources[0].plane, spacing_between_slices_mm)]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values of the source are kept as they are
        dataset.save_as(buffer, enforce_file_format=True)
    length = sum(len(piece) for piece in frames.pixels)
    assert length <= MAX_PIXEL_BYTES, "callers bound what they ask for"
    return b"".join(
        [
            buffer.getvalue(),
            _sequence(0x5200, 0x9230, *_frame_items(frames, sources, form)),
            struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW" if frames.wide else b"OB", 0, length + length % 2),
            *frames.pixels,
            bytes(length % 2),
        ]
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """What shows slice k."""

    plane: Plane
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None


def _sources(headers: Sequence[Dataset], frame_numbers: Sequence[int | None]) -> list[_Source]:
    if frame_numbers[0] is None:
        return [_Source(next(planes_of(h)), _class_of(h), str(h.SOPInstanceUID), None) for h in headers]
    [header] = headers
    planes = list(planes_of(header))
    named = [number or 1 for number in frame_numbers]
    return [_Source(planes[n - 1], _class_of(header), str(header.SOPInstanceUID), n) for n in named]


def _class_of(header: Dataset) -> str:
    if "SOPClassUID" in header:
        return str(header.SOPClassUID)
    return str(header.file_meta.MediaStorageSOPClassUID)


def _patient_and_study(header: Dataset) -> Dataset:
    """In Unicode, so that any label can be written."""
    source = deepcopy(header)
    source.decode()
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TYPE_2:
        if source.get(keyword) is None:
            setattr(dataset, keyword, "")
        else:
            dataset[keyword] = source[keyword]
    for keyword in _TYPE_3:
        if keyword in source:
            dataset[keyword] = source[keyword]
    dataset.StudyInstanceUID = source.StudyInstanceUID
    return dataset


def _series_and_equipment(dataset: Dataset, identity: SegIdentity, form: SegForm) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(_CLASSES[form])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(identity.sop_instance_uid)
    dataset.Modality, dataset.SeriesInstanceUID = "SEG", identity.series_instance_uid
    dataset.SeriesNumber, dataset.InstanceNumber = identity.series_number, identity.instance_number
    dataset.SeriesDescription = dataset.ContentDescription = identity.description[:_LABEL_CHARACTERS]
    dataset.ContentLabel, dataset.ContentCreatorName = "SEGMENTATION", identity.creator
    dataset.Manufacturer = dataset.ManufacturerModelName = _MANUFACTURER
    dataset.SoftwareVersions, dataset.DeviceSerialNumber = identity.software_version, "1"
    day, time = identity.made_at.strftime("%Y%m%d"), identity.made_at.strftime("%H%M%S")
    dataset.ContentDate = dataset.InstanceCreationDate = dataset.SeriesDate = day
    dataset.ContentTime = dataset.InstanceCreationTime = dataset.SeriesTime = time


def _references(dataset: Dataset, headers: Sequence[Dataset]) -> None:
    items: list[Dataset] = []
    for header in headers:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = _class_of(header), str(header.SOPInstanceUID)
        items.append(item)
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = str(headers[0].SeriesInstanceUID), items
    dataset.ReferencedSeriesSequence = [series]


def _image(dataset: Dataset, plane: Plane, frames: SegFrames, form: SegForm) -> None:
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = len(frames.order), plane.rows, plane.columns
    bits = 1 if form == "BINARY" else 16 if frames.wide else 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    dataset.LossyImageCompression, dataset.PresentationLUTShape = "00", "IDENTITY"
    dataset.SegmentationType, dataset.SegmentsOverlap = form, "YES" if frames.overlap else "NO"
    if form == "FRACTIONAL":
        dataset.SegmentationFractionalType, dataset.MaximumFractionalValue = "OCCUPANCY", FRACTIONAL_MAXIMUM
    elif form == "LABELMAP":
        dataset.PixelPaddingValue = 0


def _dimensions(dataset: Dataset, identity: SegIdentity, form: SegForm) -> None:
    """By segment, then along the normal (PS3.3 C.7.6.17)."""
    organization = Dataset()
    organization.DimensionOrganizationUID = (
        f"2.25.{uuid5(NAMESPACE_OID, f'{identity.sop_instance_uid} dimensions').int}"
    )
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionIndexSequence = []
    pointers = [(0x00200032, 0x00209113, "Image Position Patient")]
    if form != "LABELMAP":
        pointers.insert(0, (0x0062000B, 0x0062000A, "Referenced Segment Number"))
    for pointer, group, label in pointers:
        item = Dataset()
        item.DimensionOrganizationUID = organization.DimensionOrganizationUID
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
        item.DimensionDescriptionLabel = label
        dataset.DimensionIndexSequence.append(item)


def _shared(plane: Plane, spacing_between_slices_mm: float) -> Dataset:
    """Slices are as thick as they are apart by their positions: the source's nominal thickness is often another."""
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [_decimal(v) for v in plane.orientation]
    measures.PixelSpacing = [_decimal(plane.row_spacing_mm), _decimal(plane.column_spacing_mm)]
    measures.SliceThickness = measures.SpacingBetweenSlices = _decimal(spacing_between_slices_mm)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    return shared


def _decimal(value: float) -> str:
    """DS: at most 16 characters (PS3.5 6.2)."""
    return f"{value:.9g}"


def _description(number: int, segment: SegSegment) -> Dataset:
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = number, segment.label[:_LABEL_CHARACTERS]
    item.SegmentedPropertyCategoryCodeSequence = [_code(segment.category)]
    item.SegmentedPropertyTypeCodeSequence = [_code(segment.kind)]
    item.SegmentAlgorithmType = "MANUAL" if segment.algorithm is None else "AUTOMATIC"
    if segment.algorithm is not None:
        name, version = (word[:_LABEL_CHARACTERS] for word in segment.algorithm)
        algorithm = Dataset()
        algorithm.AlgorithmFamilyCodeSequence = [_code(_ARTIFICIAL_INTELLIGENCE)]
        algorithm.AlgorithmName, algorithm.AlgorithmVersion = name, version
        item.SegmentationAlgorithmIdentificationSequence, item.SegmentAlgorithmName = [algorithm], name
    if segment.tracking_id and segment.tracking_uid:
        item.TrackingID, item.TrackingUID = segment.tracking_id, segment.tracking_uid
    item.RecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*rgb_of(segment.color)).value)
    return item


def _background() -> Dataset:
    """What the value 0 is, which a LABELMAP has to describe (PS3.3 C.8.20.2)."""
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel, item.SegmentAlgorithmType = 0, "Background", "MANUAL"
    item.SegmentedPropertyCategoryCodeSequence = [_code(_BACKGROUND)]
    item.SegmentedPropertyTypeCodeSequence = [_code(_BACKGROUND)]
    item.RecommendedDisplayCIELabValue = [0, 32896, 32896]
    return item


def _code(code: Coded) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def rgb_of(color: str) -> tuple[int, int, int]:
    """#rrggbb"""
    value = int(color.removeprefix("#"), 16)
    return value >> 16 & 255, value >> 8 & 255, value & 255


# ------------------------------------------------------------------- frames, as bytes (Explicit VR Little Endian, PS3.5 7.1)
def _frame_items(frames: SegFrames, sources: Sequence[_Source], form: SegForm) -> Iterator[bytes]:
    segmentation = _sequence(0x0008, 0x9215, _code_bytes(_SEGMENTATION))
    purpose = _element(0x0028, 0x135A, b"CS", b"YES") + _sequence(0x0040, 0xA170, _code_bytes(_SOURCE_IMAGE))
    of_slice: dict[int, tuple[bytes, bytes]] = {}
    for number, k in frames.order:
        if k not in of_slice:
            source = sources[k]
            image = _element(0x0008, 0x1150, b"UI", source.sop_class_uid.encode())
            image += _element(0x0008, 0x1155, b"UI", source.sop_instance_uid.encode())
            if source.frame_number is not None:
                image += _element(0x0008, 0x1160, b"IS", str(source.frame_number).encode())
            position = "\\".join(_decimal(v) for v in source.plane.position_lps_mm).encode()
            of_slice[k] = (
                _sequence(0x0008, 0x9124, _sequence(0x0008, 0x2112, image + purpose) + segmentation),
                _sequence(0x0020, 0x9113, _element(0x0020, 0x0032, b"DS", position)),
            )
        derivation, plane = of_slice[k]
        index = struct.pack("<I", k + 1) if form == "LABELMAP" else struct.pack("<II", number, k + 1)
        content = _sequence(0x0020, 0x9111, _element(0x0020, 0x9157, b"UL", index))
        shown = b""
        if form != "LABELMAP":
            shown = _sequence(0x0062, 0x000A, _element(0x0062, 0x000B, b"US", struct.pack("<H", number)))
        yield derivation + content + plane + shown


def _code_bytes(code: Coded) -> bytes:
    value, scheme, meaning = (word.encode() for word in code)
    return (
        _element(0x0008, 0x0100, b"SH", value)
        + _element(0x0008, 0x0102, b"SH", scheme)
        + _element(0x0008, 0x0104, b"LO", meaning)
    )


def _element(group: int, number: int, representation: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if representation == b"UI" else b" "
    return struct.pack("<HH2sH", group, number, representation, len(value)) + value


def _sequence(group: int, number: int, *items: bytes) -> bytes:
    content = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return struct.pack("<HH2sHI", group, number, b"SQ", 0, len(content)) + content
