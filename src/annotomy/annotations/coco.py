"""Annotations as a COCO data set: boxes and outlines in pixels, which start at the same corner as ours."""

from typing import Any

import msgspec

from annotomy.annotations.contents import in_pixels, label_of
from annotomy.annotations.geometry import Geometry, outline
from annotomy.annotations.measure import measure
from annotomy.annotations.schemas import Annotation


def to_coco(found: list[Annotation], sizes: dict[str, tuple[int, int]]) -> tuple[bytes, list[str]]:
    """The file, and the ids of what has no place in it: shapes without pixels, and labels without shape.

    `sizes` gives (columns, rows) of known images; unknown ones have no width and height.
    """
    images: dict[tuple[str, int], dict[str, Any]] = {}
    categories: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    left_out: list[str] = []
    for one in reversed(found):
        geometry = in_pixels(one)
        if geometry is None or geometry.type == "none" or one.sop_instance_uid is None:
            left_out.append(str(one.id))
            continue
        place = (one.sop_instance_uid, one.frame_number or 1)
        image = images.setdefault(place, _image(len(images) + 1, one, sizes.get(one.sop_instance_uid)))
        name, super_name = _category(one)
        category = categories.setdefault(name, {"id": len(categories) + 1, "name": name, "supercategory": super_name})
        annotations.append(_annotation(len(annotations) + 1, one, geometry, image["id"], category["id"]))
    data_set = {
        "info": {"description": "Annotations from Annotomy", "version": "1"},
        "images": list(images.values()),
        "categories": list(categories.values()),
        "annotations": annotations,
    }
    return msgspec.json.encode(data_set), left_out


def _image(number: int, one: Annotation, size: tuple[int, int] | None) -> dict[str, Any]:
    image: dict[str, Any] = {
        "id": number,
        "file_name": f"{one.sop_instance_uid}.dcm",
        "study_instance_uid": one.study_instance_uid,
        "series_instance_uid": one.series_instance_uid,
        "sop_instance_uid": one.sop_instance_uid,
        "frame_number": one.frame_number or 1,
    }
    return image | ({} if size is None else {"width": size[0], "height": size[1]})


def _category(one: Annotation) -> tuple[str, str]:
    label = label_of(one)
    if label is None:
        return one.kind, ""
    return (label, "") if isinstance(label, str) else (label.meaning or label.value, f"{label.scheme}:{label.value}")


def _annotation(number: int, one: Annotation, geometry: Geometry, image_id: int, category_id: int) -> dict[str, Any]:
    points = outline(geometry)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    box = [float(left), float(top), float(right - left), float(bottom - top)]
    area = next((m.value for m in measure(geometry, None, None, None) if m.name == "area"), box[2] * box[3])
    coco: dict[str, Any] = {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": area,
        "iscrowd": 0,
        "segmentation": [[float(value) for point in points for value in point]] if geometry.is_region else [],
        "annotomy_id": str(one.id),
        "geometry_type": geometry.type,
    }
    if not geometry.is_region:
        coco["keypoints"] = [value for x, y in points for value in (float(x), float(y), 2)]
        coco["num_keypoints"] = len(points)
    return coco
