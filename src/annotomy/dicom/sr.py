"""Measurement reports: DICOM SR by TID 1500 (PS3.16), written and read. Pure.

A region is a Planar ROI group (TID 1410) with its outline; a line or an angle is a measurement group (TID 1501) whose
number is inferred from its coordinates. What is read may come from anyone: the walk takes what it knows and leaves the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

SR_CLASSES = frozenset({
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.35",  # Extensible SR
})  # fmt: skip
MAX_DEPTH = 32
"""Levels of a content tree; TID 1500 needs seven."""
MAX_ITEMS = 200_000
"""Content items of one report that are looked at."""

_TRACKING_ID, _TRACKING_UID = ("112039", "DCM"), ("112040", "DCM")
_GROUP = ("125007", "DCM")
_FINDINGS = (("121071", "DCM"), ("G-C036", "SRT"))
_COMMENT = Code("121106", "DCM", "Comment")
_DEVICE_NAME = "Annotomy"


@dataclass(frozen=True, slots=True)
class ImageReference:
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """SCOORD: (column, row) on an image; or SCOORD3D: LPS mm in a frame of reference."""

    graphic_type: str
    """POINT, POLYLINE, ELLIPSE; POLYGON in the patient."""
    points: tuple[tuple[float, ...], ...]
    image: ImageReference | None = None
    frame_of_reference_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Number:
    name: Code
    value: float
    unit: Code
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One measurement group: a finding with its region or its numbers."""

    tracking_uid: str
    tracking_identifier: str
    finding: Code | None = None
    region: Shape | None = None
    numbers: tuple[Number, ...] = ()
    comment: str = ""
    images: tuple[ImageReference, ...] = field(default=())


# -- write ---------------------------------------------------------------------------------------------------------------


def write_report(
    groups: Sequence[Group],
    evidence: Sequence[Dataset],
    *,
    observer_name: str,
    device_uid: str,
    series_instance_uid: str,
    sop_instance_uid: str,
    series_number: int,
    software_version: str,
) -> Dataset:
    """A Comprehensive 3D SR. `evidence` holds the header of every image that a group refers to, all of one study."""
    person = hd.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(name=_person_name(observer_name)),
    )
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=UID(device_uid), name=_DEVICE_NAME
        ),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=person, observer_device_context=device),
        procedure_reported=Code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[_written(group) for group in groups],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=list(evidence),
        content=report,
        series_instance_uid=series_instance_uid,
        series_number=series_number,
        sop_instance_uid=sop_instance_uid,
        instance_number=1,
        manufacturer=_DEVICE_NAME,
        manufacturer_model_name=_DEVICE_NAME,
        software_versions=software_version,
        is_complete=True,
        series_description="Annotations",
    )


def _person_name(name: str) -> str:
    """A PN of one component: delimiters of the value representation are no part of a name (PS3.5 6.2)."""
    return "".join(" " if c in "^=\\" else c for c in name)[:64].strip() or "unknown"


def _written(group: Group) -> Any:
    tracking = hd.sr.TrackingIdentifier(uid=UID(group.tracking_uid), identifier=group.tracking_identifier)
    measurements = [_measurement(number) for number in group.numbers]
    finding = None if group.finding is None else _concept(group.finding)
    if group.region is not None:
        made = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking, referenced_region=_region(group.region), finding_type=finding,
            measurements=measurements or None,
        )  # fmt: skip
    else:
        made = hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking, finding_type=finding, measurements=measurements or None,
            source_images=[
                hd.sr.SourceImageForMeasurementGroup(one.sop_class_uid, one.sop_instance_uid, _frames(one))
                for one in group.images
            ] or None,
        )  # fmt: skip
    if group.comment:
        comment = hd.sr.TextContentItem(_COMMENT, group.comment, hd.sr.RelationshipTypeValues.CONTAINS)
        made[0].ContentSequence.append(comment)
    return made


def _measurement(number: Number) -> Any:
    coordinates: Any = None
    shape = number.shape
    if shape is not None and shape.image is not None:
        coordinates = hd.sr.CoordinatesForMeasurement(shape.graphic_type, _array(shape), _source(shape.image))
    elif shape is not None:
        coordinates = hd.sr.CoordinatesForMeasurement3D(
            shape.graphic_type, _array(shape), shape.frame_of_reference_uid or ""
        )
    return hd.sr.Measurement(
        name=_concept(number.name),
        value=_decimal(number.value),
        unit=_concept(number.unit),
        referenced_coordinates=None if coordinates is None else [coordinates],
    )


def _decimal(value: float) -> float:
    """A DS holds 16 characters (PS3.5 6.2): as many digits as fit."""
    return next(short for digits in range(16, 0, -1) if len(str(short := float(f"{value:.{digits}g}"))) <= 16)


def _region(shape: Shape) -> Any:
    if shape.image is None:
        return hd.sr.ImageRegion3D(shape.graphic_type, _array(shape), shape.frame_of_reference_uid or "")
    return hd.sr.ImageRegion(shape.graphic_type, _array(shape), _source(shape.image))


def _source(image: ImageReference) -> Any:
    return hd.sr.SourceImageForRegion(image.sop_class_uid, image.sop_instance_uid, _frames(image))


def _frames(image: ImageReference) -> list[int] | None:
    return None if image.frame_number is None else [image.frame_number]


def _array(shape: Shape) -> Any:
    return np.asarray(shape.points, np.float64)


def _concept(code: Code) -> Any:
    return hd.sr.CodedConcept(code.value, code.scheme_designator, code.meaning[:64] or code.value)


# -- read ----------------------------------------------------------------------------------------------------------------


def read_report(dataset: Dataset) -> list[Group]:
    """The measurement groups of a report, in its order. Raises ValueError when it is no structured report."""
    if str(dataset.get("SOPClassUID", "")) not in SR_CLASSES or "ContentSequence" not in dataset:
        raise ValueError("no structured report with a content tree")
    return [group for item in _walk(dataset) if _name(item) == _GROUP and (group := _read_group(item)) is not None]


def _walk(root: Dataset) -> Iterator[Dataset]:
    waiting, seen = [(root, 0)], 0
    while waiting:
        item, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_ITEMS:
            raise ValueError("the content tree is deeper or larger than any report")
        yield item
        waiting += [(child, depth + 1) for child in reversed(item.get("ContentSequence") or [])]


def _read_group(item: Dataset) -> Group | None:
    children: list[Dataset] = list(item.get("ContentSequence") or [])
    by_name = {_name(child): child for child in children}
    uid = by_name.get(_TRACKING_UID)
    identifier = by_name.get(_TRACKING_ID)
    finding = next((by_name[name] for name in _FINDINGS if name in by_name), None)
    comment = by_name.get((_COMMENT.value, _COMMENT.scheme_designator))
    region = next((shape for child in children if (shape := _read_shape(child)) is not None), None)
    numbers = tuple(number for child in children if (number := _read_number(child)) is not None)
    images = tuple(image for child in children if (image := _read_image(child)) is not None)
    if region is None and not numbers and finding is None:
        return None
    return Group(
        tracking_uid=str(uid.get("UID", "")) if uid is not None else "",
        tracking_identifier=str(identifier.get("TextValue", "")) if identifier is not None else "",
        finding=_code(finding.get("ConceptCodeSequence")) if finding is not None else None,
        region=region,
        numbers=numbers,
        comment=str(comment.get("TextValue", "")) if comment is not None else "",
        images=images,
    )


def _read_number(item: Dataset) -> Number | None:
    if item.get("ValueType") != "NUM" or not item.get("MeasuredValueSequence"):
        return None
    measured, name = item.MeasuredValueSequence[0], _code(item.get("ConceptNameCodeSequence"))
    unit = _code(measured.get("MeasurementUnitsCodeSequence"))
    try:
        value = float(measured.get("FloatingPointValue", measured.get("NumericValue")))
    except (TypeError, ValueError):
        return None
    if name is None or unit is None:
        return None
    shapes = (shape for child in item.get("ContentSequence") or [] if (shape := _read_shape(child)) is not None)
    return Number(name, value, unit, next(shapes, None))


def _read_shape(item: Dataset) -> Shape | None:
    kind = item.get("ValueType")
    if kind not in ("SCOORD", "SCOORD3D") or not item.get("GraphicData"):
        return None
    coordinates = 2 if kind == "SCOORD" else 3
    values = [float(value) for value in item.GraphicData]
    if len(values) % coordinates:
        return None
    points = tuple(tuple(values[n : n + coordinates]) for n in range(0, len(values), coordinates))
    image = next((one for child in item.get("ContentSequence") or [] if (one := _read_image(child)) is not None), None)
    if kind == "SCOORD" and image is None:
        return None
    return Shape(
        str(item.get("GraphicType", "")), points, image, str(item.get("ReferencedFrameOfReferenceUID", "")) or None
    )


def _read_image(item: Dataset) -> ImageReference | None:
    if item.get("ValueType") != "IMAGE" or not item.get("ReferencedSOPSequence"):
        return None
    reference = item.ReferencedSOPSequence[0]
    frames: Any = reference.get("ReferencedFrameNumber")
    if frames is not None and not isinstance(frames, (int, str)):
        frames = frames[0]
    return ImageReference(
        str(reference.get("ReferencedSOPClassUID", "")),
        str(reference.get("ReferencedSOPInstanceUID", "")),
        None if frames is None else int(frames),
    )


def _name(item: Dataset) -> tuple[str, str]:
    code = _code(item.get("ConceptNameCodeSequence"))
    return ("", "") if code is None else (code.value, code.scheme_designator)


def _code(sequence: Any) -> Code | None:
    if not sequence:
        return None
    item = sequence[0]
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    if not value:
        return None
    return Code(str(value), str(item.get("CodingSchemeDesignator", "")), str(item.get("CodeMeaning", "")))
