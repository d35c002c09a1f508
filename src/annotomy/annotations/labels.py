"""A project's label set: coded concepts with colours, names in Korean and English, attributes and what they require.

A project without labels takes any label. With some, an annotation's label is one of them, told by its code or by any of
its names; drafts may lack what a label requires, submitted work may not.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from annotomy.annotations import rights
from annotomy.annotations.errors import FieldsRequired, InvalidAnnotation, LabelNotInSet
from annotomy.annotations.measure import Concept
from annotomy.annotations.schemas import Content, Label
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from annotomy.events import Event, emit

MAX_LABELS = 2000
"""Of a project: a whole-body set has some hundreds; a list is answered in one piece."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Color = Annotated[str, msgspec.Meta(pattern=r"^#[0-9a-f]{6}$")]
REQUIRABLE = ("geometry", "description", "measurements")


class LabelAttribute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question that the label asks, as `certainty`."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    type: Literal["text", "number", "boolean", "choice"] = "text"
    choices: Annotated[list[Name], msgspec.Meta(max_length=100)] = []
    required: bool = False
    label_en: str = ""
    label_ko: str = ""


class NewLabel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    project_id: UUID
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    scheme: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    meaning: Name
    name_en: str = ""
    """The meaning, where it is empty."""
    name_ko: str = ""
    color: Color = "#e6550d"
    attributes: Annotated[list[LabelAttribute], msgspec.Meta(max_length=50)] = []
    required: list[str] = []
    """Members that submitted work must fill in: geometry, description, measurements."""
    position: int = 0


class LabelEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Members that are left out stay. The code is the label's identity and stays always."""

    meaning: Name | msgspec.UnsetType = msgspec.UNSET
    name_en: str | msgspec.UnsetType = msgspec.UNSET
    name_ko: str | msgspec.UnsetType = msgspec.UNSET
    color: Color | msgspec.UnsetType = msgspec.UNSET
    attributes: list[LabelAttribute] | msgspec.UnsetType = msgspec.UNSET
    required: list[str] | msgspec.UnsetType = msgspec.UNSET
    position: int | msgspec.UnsetType = msgspec.UNSET
    retired: bool | msgspec.UnsetType = msgspec.UNSET
    """Retired labels stay with what carries them and are offered no more."""


class ProjectLabel(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    project_id: UUID
    value: str
    scheme: str
    meaning: str
    name_en: str
    name_ko: str
    color: str
    attributes: list[LabelAttribute]
    required: list[str]
    position: int
    retired: bool
    version: int


_SELECT = (
    "select id, project_id, value, scheme, meaning, name_en, name_ko, color, attributes, required, position,"
    " retired_at is not null as retired, version from labels"
)


async def list_labels(tx: ReadTx, project_id: UUID, *, retired: bool = False) -> list[ProjectLabel]:
    await rights.require_right(tx, rights.Action.READ, project_id)
    rows = await tx.fetch(
        f"{_SELECT} where project_id = $1 and ($2 or retired_at is null) order by position, name_en, id limit {MAX_LABELS}",
        project_id, retired,
    )  # fmt: skip
    return [_label(row) for row in rows]


async def get_label(tx: ReadTx, label_id: UUID) -> ProjectLabel:
    row = await tx.fetchrow(f"{_SELECT} where id = $1", label_id)
    if row is None:
        raise NotFound("There is no such label.")
    try:
        await rights.require_right(tx, rights.Action.READ, row["project_id"])
    except NotFound:
        raise NotFound("There is no such label.") from None
    return _label(row)


async def create_label(tx: WriteTx, new: NewLabel) -> ProjectLabel:
    """Raises Conflict when the project has a label of this code."""
    await rights.require_right(tx, rights.Action.MANAGE, new.project_id)
    _check(new.attributes, new.required)
    if await tx.fetchval("select count(*) from labels where project_id = $1", new.project_id) >= MAX_LABELS:
        raise BadRequest(f"A project has at most {MAX_LABELS} labels.")
    label_id = await tx.fetchval(
        "insert into labels (id, project_id, value, scheme, meaning, name_en, name_ko, color, attributes, required, position)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (project_id, scheme, value) do nothing returning id",
        new_id(), new.project_id, new.value, new.scheme, new.meaning, new.name_en or new.meaning, new.name_ko or new.meaning,
        new.color, msgspec.to_builtins(new.attributes), new.required, new.position,
    )  # fmt: skip
    if label_id is None:
        raise Conflict("The project has a label of this code; it may be retired.")
    await _tell(tx, "label.created", new.project_id, label_id)
    return await get_label(tx, label_id)


async def edit_label(tx: WriteTx, label_id: UUID, edit: LabelEdit, *, expected_version: int) -> ProjectLabel:
    """Raises Conflict with the present version when somebody changed the label meanwhile."""
    known = await get_label(tx, label_id)
    await rights.require_right(tx, rights.Action.MANAGE, known.project_id)
    given = {name: value for name, value in msgspec.structs.asdict(edit).items() if value is not msgspec.UNSET}
    merged = msgspec.structs.replace(known, **given)
    _check(merged.attributes, merged.required)
    version = await tx.fetchval(
        "update labels set meaning = $3, name_en = $4, name_ko = $5, color = $6, attributes = $7, required = $8,"
        " position = $9, retired_at = case when $10 then coalesce(retired_at, now()) end, updated_at = now(),"
        " version = version + 1 where id = $1 and version = $2 returning version",
        label_id, expected_version, merged.meaning, merged.name_en or merged.meaning, merged.name_ko or merged.meaning,
        merged.color, msgspec.to_builtins(merged.attributes), merged.required, merged.position, merged.retired,
    )  # fmt: skip
    if version is None:
        raise PreconditionFailed("The label was changed meanwhile.", current_version=known.version)
    await _tell(tx, "label.edited", known.project_id, label_id)
    return await get_label(tx, label_id)


async def offered_labels(tx: ReadTx, project_id: UUID) -> list[Any]:
    """The rows of the project's set, without the retired ones: `label_from_set` chooses among them."""
    return await tx.fetch(
        "select value, scheme, meaning, name_en, name_ko, attributes from labels where project_id = $1 and retired_at is null",
        project_id,
    )


def label_from_set(offered: list[Any], label: Label, attributes: dict[str, Any]) -> Label:
    """The label as the project's set spells it. Raises LabelNotInSet, or InvalidAnnotation for an attribute's value."""
    if not offered:
        return label
    chosen = next((row for row in offered if _is_called(row, label)), None)
    if chosen is None:
        raise LabelNotInSet("The project's label set has no such label.", field="label")
    for attribute in msgspec.convert(chosen["attributes"], list[LabelAttribute]):
        value = attributes.get(attribute.name)
        if value is not None and not _fits(attribute, value):
            raise InvalidAnnotation(f"The attribute takes a {attribute.type}.", field=f"attributes.{attribute.name}")
    return Concept(chosen["value"], chosen["scheme"], chosen["meaning"])


async def require_complete(tx: ReadTx, project_id: UUID, content: Content) -> None:
    """Raises FieldsRequired when the project's label asks for what the annotation lacks."""
    rows = await tx.fetch(
        "select value, scheme, meaning, name_en, name_ko, attributes, required from labels where project_id = $1",
        project_id,
    )
    if not rows:
        return
    if content.label is None:
        raise FieldsRequired("The project has a label set: submitted work has a label.", missing=["label"])
    chosen = next((row for row in rows if _is_called(row, content.label)), None)
    if chosen is None:
        return  # labelled before the set was made
    missing = [name for name in chosen["required"] if _is_empty(content, name)]
    missing += [
        f"attributes.{one.name}"
        for one in msgspec.convert(chosen["attributes"], list[LabelAttribute])
        if one.required and content.attributes.get(one.name) in (None, "")
    ]
    if missing:
        raise FieldsRequired("The label asks for more than is filled in.", missing=missing)


def _is_empty(content: Content, member: str) -> bool:
    if member == "geometry":
        return content.geometry.type == "none"
    return not getattr(content, member)


def _is_called(row: Any, label: Label) -> bool:
    if isinstance(label, Concept):
        return (row["value"], row["scheme"]) == (label.value, label.scheme)
    names = (row["value"], row["meaning"], row["name_en"], row["name_ko"])
    return label.strip().casefold() in {name.casefold() for name in names}


def _fits(attribute: LabelAttribute, value: Any) -> bool:
    match attribute.type:
        case "text":
            return isinstance(value, str)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "choice":
            return value in attribute.choices


def _check(attributes: list[LabelAttribute], required: list[str]) -> None:
    unknown = [name for name in required if name not in REQUIRABLE]
    if unknown:
        raise BadRequest(f"A label may require: {', '.join(REQUIRABLE)}; attributes say so themselves.")
    names = [attribute.name for attribute in attributes]
    if len(set(names)) != len(names):
        raise BadRequest("Two attributes have the same name.")
    if any((attribute.type == "choice") != bool(attribute.choices) for attribute in attributes):
        raise BadRequest("Attributes of type choice have choices, others have none.")


def _label(row: Any) -> ProjectLabel:
    return msgspec.convert(dict(row), ProjectLabel)


async def _tell(tx: WriteTx, kind: str, project_id: UUID, label_id: UUID) -> None:
    await emit(tx, Event(type=kind, object_kind="label", object_id=str(label_id), project_id=project_id))
