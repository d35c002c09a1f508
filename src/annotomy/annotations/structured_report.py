"""Annotations as DICOM SR (TID 1500) and back. Tracking UIDs stay, so that a finding is the same one everywhere.

The tracking identifier carries our type of geometry; reports of others are read by their graphics and numbers.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from pydicom.sr.coding import Code

from annotomy.annotations.geometry import Geometry, Space, Type, outline
from annotomy.annotations.measure import CONCEPTS, Concept, Measurement
from annotomy.annotations.schemas import Label
from annotomy.dicom.gsps import Mark
from annotomy.dicom.sr import Group, ImageReference, Number, Shape

IDENTIFIER_PREFIX = "annotomy:"
TEXT_LABEL = ("text-label", "99ANNOTOMY")
"""Stands for a label without a code."""

_UNIT_MEANINGS = {
    "mm": "millimeter", "mm2": "square millimeter", "mm3": "cubic millimeter", "deg": "degree", "1": "no units",
    "[hnsf'U]": "Hounsfield unit", "{pixels}": "pixels",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reportable:
    """What of an annotation goes into a report: its shape in pixels of an image that is at hand, or none."""

    tracking_uid: str
    kind: str
    geometry: Geometry
    label: Label | None
    measurements: tuple[Measurement, ...]
    description: str
    image: ImageReference | None


def to_group(one: Reportable) -> Group | None:
    """None when TID 1500 has no place for the shape: patient shapes without an image."""
    finding = _finding(one)
    identifier = IDENTIFIER_PREFIX + (one.kind if one.geometry.type == "none" else one.geometry.type)
    group = Group(one.tracking_uid, identifier, finding, numbers=_numbers(one), comment=one.description)
    if one.geometry.type == "none":
        images = () if one.image is None else (one.image,)
        return replace(group, images=images)
    if one.image is None or one.geometry.space != "pixel":
        return None
    region = _region(one.geometry, one.image)
    if region is not None:
        return replace(group, region=region)
    return replace(group, numbers=_numbers_on_lines(one, one.image), images=(one.image,))


def to_mark(group: Group) -> Mark | None:
    """The drawn part of a group, with its label (else its description: the text of an arrow) and its first number as text.
    None where nothing is drawn."""
    shapes = [group.region] if group.region is not None else [n.shape for n in group.numbers if n.shape is not None]
    if not shapes or shapes[0].image is None:
        return None
    drawn = tuple(dict.fromkeys((shape.graphic_type, shape.points) for shape in shapes))
    named = group.comment if group.finding is None else group.finding.meaning
    texts = [named] if named else []
    # An arrow's length carries its points in a report and means nothing.
    told = () if group.tracking_identifier == f"{IDENTIFIER_PREFIX}arrow" else group.numbers[:1]
    texts += [f"{number.value:.1f} {number.unit.value}" for number in told]
    return Mark(shapes[0].image, drawn, ", ".join(texts), group.tracking_uid, group.tracking_identifier)


def _finding(one: Reportable) -> Code | None:
    match one.label:
        case None:
            return None
        case str() as text:
            return Code(*TEXT_LABEL, text[:64])
        case code:
            return Code(code.value, code.scheme, code.meaning)


def _region(geometry: Geometry, image: ImageReference) -> Shape | None:
    if geometry.type in ("point", "probe"):
        return Shape("POINT", geometry.points, image)
    if not geometry.is_region:
        return None
    if geometry.type == "ellipse" and len(geometry.points) == 4:
        first, second = geometry.points[:2], geometry.points[2:]
        # The major axis comes first (PS3.3 C.18.6.1.2).
        longer = math.dist(*first) >= math.dist(*second)
        return Shape("ELLIPSE", (*first, *second) if longer else (*second, *first), image)
    border = [(float(x), float(y)) for x, y in outline(geometry)]
    return Shape("POLYLINE", (*border, border[0]), image)


def _numbers(one: Reportable) -> tuple[Number, ...]:
    return tuple(Number(_name(each), each.value, _unit(each.unit)) for each in one.measurements)


def _numbers_on_lines(one: Reportable, image: ImageReference) -> tuple[Number, ...]:
    """Each number with the points that it was taken from; a shape without a number gets its length, which carries it."""
    points = tuple((p[0], p[1]) for p in one.geometry.points)
    if one.geometry.type in ("freehand", "spline"):
        points = tuple((float(x), float(y)) for x, y in outline(one.geometry))
    whole = Shape("POLYLINE", points, image)
    numbers: list[Number] = []
    for each in one.measurements:
        shape = None
        if each.source == "server":
            shape = whole
            if one.geometry.type == "bidirectional":
                shape = Shape("POLYLINE", _axis(points, long=each.name == "long_axis"), image)
        numbers.append(Number(_name(each), each.value, _unit(each.unit), shape))
    if not any(number.shape is not None for number in numbers):
        length = sum(math.dist(a, b) for a, b in pairwise(points))
        numbers.append(Number(_code(CONCEPTS["length"]), length, _unit("{pixels}"), whole))
    return tuple(numbers)


def _axis(points: tuple[tuple[float, float], ...], *, long: bool) -> tuple[tuple[float, float], ...]:
    first, second = points[:2], points[2:]
    return first if (math.dist(*first) >= math.dist(*second)) == long else second


def _name(measurement: Measurement) -> Code:
    return _code(measurement.concept or Concept(measurement.name, "99ANNOTOMY", measurement.name))


def _code(concept: Concept) -> Code:
    return Code(concept.value, concept.scheme, concept.meaning)


def _unit(unit: str) -> Code:
    return Code(unit or "1", "UCUM", _UNIT_MEANINGS.get(unit, unit or "no units"))


# -- back ------------------------------------------------------------------------------------------------------------------

_NAMES = {
    **{(concept.value, concept.scheme): name for name, concept in CONCEPTS.items()},
    ("G-D7FE", "SRT"): "length",
    ("G-A166", "SRT"): "area",
}
"""With the codes before SNOMED CT, which older reports still carry."""


@dataclass(frozen=True, slots=True)
class Found:
    """A group of a report as an annotation would hold it."""

    tracking_uid: str
    kind: str
    geometry: Geometry
    label: Label | None
    measurements: list[Measurement]
    description: str
    image: ImageReference | None


def from_group(group: Group) -> Found:
    """Numbers that the server takes itself are left to it; the others are kept as reported."""
    ours = group.tracking_identifier.removeprefix(IDENTIFIER_PREFIX)
    ours = ours if ours != group.tracking_identifier else ""
    geometry, image = _geometry(group, ours)
    kept = [number for number in group.numbers if not (geometry.type != "none" and _is_taken_again(number))]
    return Found(
        tracking_uid=group.tracking_uid,
        kind=ours if geometry.type == "none" and ours else ("label" if geometry.type == "none" else "measurement"),
        geometry=geometry,
        label=_label(group.finding),
        measurements=[
            Measurement(
                _NAMES.get((n.name.value, n.name.scheme_designator), n.name.meaning or n.name.value), n.value, n.unit.value,
                Concept(n.name.value, n.name.scheme_designator, n.name.meaning),
            )
            for n in kept
        ],
        description=group.comment,
        image=image if image is not None else next(iter(group.images), None),
    )  # fmt: skip


def _is_taken_again(number: Number) -> bool:
    return (number.name.value, number.name.scheme_designator) in _NAMES


def _label(finding: Code | None) -> Label | None:
    if finding is None:
        return None
    if (finding.value, finding.scheme_designator) == TEXT_LABEL:
        return finding.meaning
    return Concept(finding.value, finding.scheme_designator, finding.meaning)


def _geometry(group: Group, ours: str) -> tuple[Geometry, ImageReference | None]:
    shape = group.region
    if shape is not None:
        return _of_region(shape, ours), shape.image
    shapes = [(number, number.shape) for number in group.numbers if number.shape is not None]
    if not shapes:
        return Geometry("none"), None
    if len(shapes) == 2 and all(len(shape.points) == 2 for _, shape in shapes):
        return Geometry("bidirectional", _space(shapes[0][1]), (*shapes[0][1].points, *shapes[1][1].points)), shapes[0][
            1
        ].image
    number, shape = shapes[0]
    points, name = shape.points, _NAMES.get((number.name.value, number.name.scheme_designator), "")
    kind: Type = "point" if len(points) == 1 else "length" if len(points) == 2 else "freehand"
    if name == "angle" and len(points) == 3:
        kind = "angle"
    elif name == "cobb_angle" and len(points) == 4:
        kind = "cobb_angle"
    elif ours == "arrow" and len(points) == 2:
        kind = "arrow"
    closed = False if kind == "freehand" else None
    return Geometry(kind, _space(shape), points, closed), shape.image


def _of_region(shape: Shape, ours: str) -> Geometry:
    space, points = _space(shape), shape.points
    if shape.graphic_type == "POINT":
        return Geometry("probe" if ours == "probe" else "point", space, points[:1])
    if shape.graphic_type == "ELLIPSE" and len(points) == 4:
        return Geometry("ellipse", space, points)
    if shape.graphic_type in ("POLYLINE", "POLYGON"):
        ring = points[:-1] if len(points) > 3 and points[0] == points[-1] else points
        if ours == "rectangle" and len(ring) == 4:
            return Geometry("rectangle", space, ring)
        if len(ring) >= 3:
            return Geometry("freehand" if ours in ("freehand", "spline") else "polygon", space, ring)
        if len(ring) == 2:
            return Geometry("length", space, ring)
    return Geometry("none")


def _space(shape: Shape) -> Space:
    return "pixel" if shape.image is not None else "lps_mm"
