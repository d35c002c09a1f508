"""Drawings as a Grayscale Softcopy Presentation State (PS3.3 A.33.1): what any viewer lays over the images of a series. Pure.

Points are (column, row) from the top-left corner of the first pixel: units PIXEL (PS3.3 C.10.5.1.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from annotomy.dicom.sr import ImageReference

_LAYER = "ANNOTATIONS"
_MAKER = "Annotomy"
MAX_TEXT = 1024
"""Characters of an ST (PS3.5 6.2)."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Graphics on one image, with a text at the first point."""

    image: ImageReference
    graphics: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]
    """POINT, POLYLINE or ELLIPSE with its points."""
    text: str
    tracking_uid: str
    tracking_identifier: str


def write_presentation_state(
    marks: Sequence[Mark],
    images: Sequence[Dataset],
    *,
    creator_name: str,
    device_serial_number: str,
    series_instance_uid: str,
    sop_instance_uid: str,
    series_number: int,
    software_version: str,
) -> Dataset:
    """`images` holds the header of every image that is marked, all of one series. No window is set: the viewer's stays."""
    layer = hd.pr.GraphicLayer(_LAYER, order=1, description="Annotations")
    by_uid = {str(image.SOPInstanceUID): image for image in images}
    state = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=list(images),
        series_instance_uid=series_instance_uid,
        series_number=series_number,
        sop_instance_uid=sop_instance_uid,
        instance_number=1,
        manufacturer=_MAKER,
        manufacturer_model_name=_MAKER,
        software_versions=software_version,
        device_serial_number=device_serial_number,
        content_label=_LAYER,
        content_description="Annotations",
        content_creator_name=creator_name,
        graphic_layers=[layer],
        graphic_annotations=[_drawn(mark, by_uid[mark.image.sop_instance_uid], layer) for mark in marks],
        series_description="Annotations",
    )
    # Type 2C for paired structures (PS3.3 C.7.3.1): said where the images say it, else empty.
    state.Laterality = images[0].get("Laterality", "")
    return state


def _drawn(mark: Mark, image: Dataset, layer: Any) -> Any:
    objects = [
        hd.pr.GraphicObject(
            graphic_type, np.asarray(points, np.float64), hd.pr.AnnotationUnitsValues.PIXEL,
            tracking_id=mark.tracking_identifier, tracking_uid=UID(mark.tracking_uid),
        )
        for graphic_type, points in mark.graphics
    ]  # fmt: skip
    anchor = mark.graphics[0][1][0]
    text = hd.pr.TextObject(
        mark.text[:MAX_TEXT],
        hd.pr.AnnotationUnitsValues.PIXEL,
        anchor_point=(anchor[0], anchor[1]),
        anchor_point_visible=False,
    )
    return hd.pr.GraphicAnnotation(
        referenced_images=[image], graphic_layer=layer, referenced_frame_number=mark.image.frame_number,
        graphic_objects=objects, text_objects=[text] if mark.text else None,
    )  # fmt: skip
