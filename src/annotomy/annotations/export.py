"""Annotations as files: JSON, CSV, COCO, DICOM SR. Each takes the filter of the list and what the actor may read of it."""

import asyncio
import csv
import io
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import msgspec
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

import annotomy
from annotomy.actor import Actor
from annotomy.annotations.coco import to_coco
from annotomy.annotations.contents import geometry_of, in_pixels, label_of, measurements_of
from annotomy.annotations.errors import NothingToExport
from annotomy.annotations.frames import find_image
from annotomy.annotations.measure import Concept
from annotomy.annotations.query import Filter, list_annotations
from annotomy.annotations.schemas import Annotation
from annotomy.annotations.structured_report import Reportable, to_group, to_mark
from annotomy.archive.downloads import require_reason_for
from annotomy.archive.store import Incoming, store_instances
from annotomy.db.engine import ReadTx
from annotomy.dicom.gsps import Mark, write_presentation_state
from annotomy.dicom.sr import Group, ImageReference, write_report
from annotomy.errors import BadRequest, TooLarge
from annotomy.events import Event, emit
from annotomy.http.pages import MAX_LIMIT
from annotomy.projects.access import visible_instances
from annotomy.services import Services

Format = Literal["json", "csv", "coco", "sr", "gsps"]
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "coco": "application/json",
    "sr": "application/dicom",
    "gsps": "application/dicom",
}
MAX_EXPORTED = 20_000
"""Annotations of one file: it is made in memory. Narrow the filter, or page through the list."""
MAX_REPORTED = 2000
"""Groups of one report: viewers read a report whole before they show any of it."""
SR_SERIES_NUMBER, GSPS_SERIES_NUMBER = 9000, 9001
"""Beyond the numbers that scanners give."""


@dataclass(frozen=True, slots=True)
class Exported:
    body: bytes
    included: int
    left_out: list[str]
    """Ids of annotations that the format has no place for."""


@dataclass(frozen=True, slots=True)
class StoredReport:
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    included: int
    left_out: list[str]


async def export_annotations(services: Services, actor: Actor, asked: Filter, form: Format) -> Exported:
    """Raises NothingToExport, TooLarge, and BadRequest for a report on several studies."""
    async with services.db.read(actor) as tx:
        found = await _collect(tx, asked)
        require_reason_for(services, len({one.study_instance_uid for one in found}))
        sizes = await _image_sizes(tx, found) if form == "coco" else {}
        material = await _report_material(tx, found) if form in ("sr", "gsps") else None
    match form:
        case "json":
            made = Exported(_json(found), len(found), [])
        case "csv":
            made = Exported(await asyncio.to_thread(_csv, found), len(found), [])
        case "coco":
            body, left_out = await asyncio.to_thread(to_coco, found, sizes)
            made = Exported(body, len(found) - len(left_out), left_out)
        case "sr":
            assert material is not None
            made, _ = await asyncio.to_thread(_report, material, actor.name)
        case "gsps":
            assert material is not None
            made = await asyncio.to_thread(_presentation, material, actor.name)
    async with services.db.write(actor) as tx:
        await emit(tx, _event("annotations.exported", asked, form, made.included))
    return made


async def store_report(services: Services, actor: Actor, asked: Filter) -> StoredReport:
    """A new SR instance in the study that the annotations are on. Raises what the store operation refuses."""
    if asked.project_id is None:
        raise BadRequest("A report is stored through a project: send project_id.")
    async with services.db.read(actor) as tx:
        material = await _report_material(tx, await _collect(tx, asked))
    made, dataset = await asyncio.to_thread(_report, material, actor.name)

    async def files() -> AsyncIterator[Incoming]:
        yield Incoming(name="annotations.dcm", data=made.body)

    [outcome] = await store_instances(services, actor, asked.project_id, files())
    if outcome.problem is not None:
        raise outcome.problem
    async with services.db.write(actor) as tx:
        await emit(tx, _event("annotations.reported", asked, "sr", made.included))
    return StoredReport(
        outcome.study_instance_uid,
        outcome.series_instance_uid,
        str(dataset.SOPInstanceUID),
        made.included,
        made.left_out,
    )


async def _collect(tx: ReadTx, asked: Filter) -> list[Annotation]:
    found: list[Annotation] = []
    cursor: str | None = None
    while True:
        page = await list_annotations(tx, asked, limit=MAX_LIMIT, cursor=cursor)
        found += page.items
        if len(found) > MAX_EXPORTED or (page.total or 0) > MAX_EXPORTED:
            raise TooLarge(f"One file takes {MAX_EXPORTED} annotations; narrow the filter.", limit_items=MAX_EXPORTED)
        if page.next is None:
            break
        cursor = page.next
    if not found:
        raise NothingToExport("Nothing that you may read matches.")
    return found


def _event(kind: str, asked: Filter, form: str, count: int) -> Event:
    return Event(
        type=kind,
        object_kind="study" if asked.study_instance_uid else "project",
        object_id=asked.study_instance_uid or str(asked.project_id or ""),
        project_id=asked.project_id,
        data={"format": form, "annotations": count},
    )


# -- JSON and CSV --------------------------------------------------------------------------------------------------------


def _json(found: list[Annotation]) -> bytes:
    return msgspec.json.encode({"format": "annotomy-annotations", "format_version": 1, "annotations": found})


_COLUMNS = (
    "id", "project_id", "study_instance_uid", "series_instance_uid", "sop_instance_uid", "frame_number", "tracking_uid", "kind",
    "state", "version", "author", "created_at", "updated_at", "description",
)  # fmt: skip


def _csv(found: list[Annotation]) -> bytes:
    """A row for each annotation, a column for each measurement and unit. Opens in spreadsheets (UTF-8 with its mark)."""
    measured = [{f"{m.name} [{m.unit}]": m.value for m in measurements_of(one)} for one in found]
    names = sorted({name for row in measured for name in row})
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    head = ["label_value", "label_scheme", "label_meaning", "geometry_type", "space", "points", "attributes"]
    writer.writerow([*_COLUMNS, *head, *map(harmless, names)])
    for one, values in zip(found, measured, strict=True):
        label, geometry = label_of(one), geometry_of(one)
        code = ("", "", label) if isinstance(label, str) else ("", "", "")
        if isinstance(label, Concept):
            code = (label.value, label.scheme, label.meaning)
        cells = [*(getattr(one, name) for name in _COLUMNS), *code, geometry.type, geometry.space or ""]
        cells += [msgspec.json.encode(geometry.points).decode(), bytes(msgspec.json.encode(one.attributes)).decode()]
        writer.writerow(
            [harmless(str(cell)) if cell is not None else "" for cell in cells] + [values.get(n, "") for n in names]
        )
    return ("\ufeff" + text.getvalue()).encode()


def harmless(cell: str) -> str:
    """Spreadsheets run what begins like a formula: an apostrophe makes it a text."""
    return "'" + cell if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else cell


async def _image_sizes(tx: ReadTx, found: Sequence[Annotation]) -> dict[str, tuple[int, int]]:
    """(columns, rows) of the images that the archive holds and the actor sees."""
    uids = sorted({one.sop_instance_uid for one in found if one.sop_instance_uid is not None})
    found_rows = await tx.fetch(
        "select distinct on (i.sop_instance_uid) i.sop_instance_uid, i.image_columns, i.image_rows from instances i"
        " where i.sop_instance_uid = any($1) and i.image_rows is not null and i.image_columns is not null"
        f" and {visible_instances('i')} order by i.sop_instance_uid, i.id",
        uids,
    )
    return {row["sop_instance_uid"]: (row["image_columns"], row["image_rows"]) for row in found_rows}


# -- DICOM SR --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Material:
    project_id: UUID
    study_instance_uid: str
    groups: list[Group]
    evidence: list[Dataset]
    left_out: list[str]


async def _report_material(tx: ReadTx, found: list[Annotation]) -> _Material:
    studies = {(one.project_id, one.study_instance_uid) for one in found}
    if len(studies) > 1:
        raise BadRequest("A report is of one study: send project_id and study_instance_uid.")
    if len(found) > MAX_REPORTED:
        raise TooLarge(f"One report takes {MAX_REPORTED} annotations; narrow the filter.", limit_items=MAX_REPORTED)
    evidence: dict[str, Dataset] = {}
    groups: list[Group] = []
    left_out: list[str] = []
    for one in reversed(found):
        image = None
        if one.sop_instance_uid is not None:
            _, known = await find_image(tx, one.study_instance_uid, one.sop_instance_uid)
            if known is not None:
                evidence[one.sop_instance_uid] = known.header
                many = known.location.number_of_frames > 1
                image = ImageReference(
                    known.location.sop_class_uid, one.sop_instance_uid, (one.frame_number or 1) if many else None
                )
        group = _group(one, image)
        if group is None:
            left_out.append(str(one.id))
        else:
            groups.append(group)
    if not groups or not evidence:
        raise NothingToExport("None of these annotations lies on an image that this archive holds.")
    [(project_id, study)] = studies
    return _Material(project_id, study, groups, list(evidence.values()), left_out)


def _group(one: Annotation, image: ImageReference | None) -> Group | None:
    geometry = in_pixels(one)
    if geometry is None or (one.sop_instance_uid is not None and image is None):
        return None
    return to_group(
        Reportable(
            tracking_uid=one.tracking_uid,
            kind=one.kind,
            geometry=geometry,
            label=label_of(one),
            measurements=tuple(measurements_of(one)),
            description=one.description,
            image=image,
        )
    )


def _report(material: _Material, observer_name: str) -> tuple[Exported, Dataset]:
    series = f"2.25.{uuid.uuid5(material.project_id, 'annotations of ' + material.study_instance_uid).int}"
    dataset = write_report(
        material.groups,
        material.evidence,
        observer_name=observer_name,
        device_uid=f"2.25.{material.project_id.int}",
        series_instance_uid=series,
        sop_instance_uid=str(generate_uid(prefix=None)),
        series_number=SR_SERIES_NUMBER,
        software_version=annotomy.__version__,
    )
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return Exported(file.getvalue(), len(material.groups), material.left_out), dataset


# -- DICOM GSPS ------------------------------------------------------------------------------------------------------------


def _presentation(material: _Material, creator_name: str) -> Exported:
    """The shapes of one series. Raises BadRequest for several, NothingToExport where nothing is drawn."""
    left_out, marks = list(material.left_out), list[Mark]()
    for group in material.groups:
        mark = to_mark(group)
        if mark is None:
            left_out.append(group.tracking_uid)
        else:
            marks.append(mark)
    marked = {mark.image.sop_instance_uid for mark in marks}
    images = [image for image in material.evidence if str(image.SOPInstanceUID) in marked]
    if not images:
        raise NothingToExport("No shape of these annotations lies on an image that this archive holds.")
    if len({str(image.SeriesInstanceUID) for image in images}) > 1:
        raise BadRequest("A presentation state is of one series: send series_instance_uid.")
    dataset = write_presentation_state(
        marks,
        images,
        creator_name=creator_name,
        device_serial_number=str(material.project_id),
        series_instance_uid=str(generate_uid(prefix=None)),
        sop_instance_uid=str(generate_uid(prefix=None)),
        series_number=GSPS_SERIES_NUMBER,
        software_version=annotomy.__version__,
    )
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return Exported(file.getvalue(), len(marks), left_out)
