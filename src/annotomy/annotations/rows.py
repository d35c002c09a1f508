"""Rows of annotations and their answers. JSON columns travel as text from the database to the client, unparsed."""

from typing import Any

import msgspec

from annotomy.annotations.rights import SEEN
from annotomy.annotations.schemas import Annotation, Content, Summary

ANNOTATION = (
    "a.id, a.project_id, a.study_instance_uid, a.series_instance_uid, a.sop_instance_uid, a.frame_number, a.tracking_uid,"
    " a.kind, a.tool, a.model, a.geometry::text, a.mapped_geometry::text, a.label::text, a.attributes::text, a.measurements::text,"
    " a.description, a.state, a.version, a.assigned_to, a.created_by, u.username, a.updated_by, a.created_at, a.updated_at, a.deleted_at,"
    " a.study_id is not null"
)
"""The columns of `Annotation`, in its order, from `annotations a join users u`."""
SUMMARY = (
    "a.id, a.study_instance_uid, a.series_instance_uid, a.sop_instance_uid, a.frame_number, a.kind, a.geometry_type,"
    " a.label::text, a.state, a.version, a.assigned_to, a.created_by, u.username, a.updated_at, a.deleted_at"
)
EDITABLE = Content.__struct_fields__
FROM = f"annotations a join users u on u.id = a.created_by {SEEN}"

_LENGTH = len(Annotation.__struct_fields__)
_JSON_OF_ANNOTATION = range(10, 15)
_JSON_OF_SUMMARY = 7


def annotation(row: Any) -> Annotation:
    """From a row that begins with the columns `ANNOTATION`."""
    values: list[Any] = list(row)[:_LENGTH]
    for index in _JSON_OF_ANNOTATION:
        if values[index] is not None:
            values[index] = msgspec.Raw(values[index].encode())
    return Annotation(*values)


def summary(row: Any) -> Summary:
    values: list[Any] = list(row)
    if values[_JSON_OF_SUMMARY] is not None:
        values[_JSON_OF_SUMMARY] = msgspec.Raw(values[_JSON_OF_SUMMARY].encode())
    return Summary(*values)


def content(found: Annotation) -> dict[str, Any]:
    """What people edit, as plain JSON."""
    return {
        "kind": found.kind,
        "geometry": _parsed(found.geometry),
        "label": _parsed(found.label),
        "attributes": _parsed(found.attributes),
        "measurements": _parsed(found.measurements),
        "description": found.description,
    }


def to_content(plain: dict[str, Any]) -> Content:
    """Raises msgspec.ValidationError."""
    return msgspec.convert(plain, Content)


def _parsed(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
