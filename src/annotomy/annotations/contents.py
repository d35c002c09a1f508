"""The parts of a read annotation, parsed: answers carry them as the text that the database keeps."""

from typing import Any

import msgspec

from annotomy.annotations.geometry import Geometry
from annotomy.annotations.measure import Concept, Measurement
from annotomy.annotations.schemas import Annotation


def geometry_of(one: Annotation) -> Geometry:
    return _decoded(one.geometry, Geometry)


def label_of(one: Annotation) -> str | Concept | None:
    return _decoded(one.label, str | Concept | None)


def measurements_of(one: Annotation) -> list[Measurement]:
    return _decoded(one.measurements, list[Measurement])


def in_pixels(one: Annotation) -> Geometry | None:
    """The shape on its image, or the geometry of type none."""
    for geometry in (geometry_of(one), _decoded(one.mapped_geometry, Geometry | None)):
        if geometry is not None and (geometry.space == "pixel" or geometry.type == "none"):
            return geometry
    return None


def _decoded(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(value, type=kind) if isinstance(value, msgspec.Raw) else value
