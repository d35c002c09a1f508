"""Annotations from files: our JSON, and DICOM SR of anyone. Each item is checked as if it were drawn, with its own result.

A tracking UID that the study has in this project already is left as it stands: taking a file in twice makes nothing twice.
"""

import asyncio
import io
from typing import Any
from uuid import UUID, uuid5

import msgspec
from pydicom import dcmread
from pydicom.dataset import Dataset

from annotomy.actor import Actor
from annotomy.annotations.batch import MAX_ITEMS, Result, take_in
from annotomy.annotations.errors import UnreadableReport
from annotomy.annotations.schemas import NewAnnotation
from annotomy.annotations.structured_report import Found, from_group
from annotomy.archive.retrieve import locate_one, read_dataset
from annotomy.dicom.sr import read_report
from annotomy.dicom.unreadable import UNREADABLE
from annotomy.errors import BadRequest, TooLarge
from annotomy.services import Services

MAX_REPORT_BYTES = 64 << 20
REPORT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
        "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
        "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    }
)
"""Where measurement reports (TID 1500) are found."""


async def import_json(services: Services, actor: Actor, project_id: UUID, body: dict[str, Any]) -> list[Result]:
    """What the JSON export wrote, into any project. Raises BadRequest when it is something else."""
    items: Any = body.get("annotations")
    if not isinstance(items, list):
        raise BadRequest("The file has a list named annotations.")
    _limit(len(items))
    taken = set(NewAnnotation.__struct_fields__) - {"project_id", "why"}
    news: list[NewAnnotation] = []
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise BadRequest(f"Item {number} of annotations is no object.")
        given = {name: value for name, value in item.items() if name in taken}
        given["measurements"] = [m for m in item.get("measurements") or [] if m.get("source") != "server"]
        try:
            news.append(msgspec.convert({"project_id": str(project_id), **given}, NewAnnotation))
        except msgspec.ValidationError as error:
            raise BadRequest(f"Item {number} of annotations is not valid: {error}") from error
    return await take_in(services, actor, news)


async def import_stored_report(
    services: Services, actor: Actor, project_id: UUID, sop_instance_uid: str
) -> list[Result]:
    """A report that the archive holds."""
    location = await locate_one(services, actor, sop_instance_uid)
    if location.blob_size > MAX_REPORT_BYTES:
        raise TooLarge("The report is over the limit.", limit_bytes=MAX_REPORT_BYTES)
    dataset = await read_dataset(services, location)
    return await _import_report(services, actor, project_id, dataset)


async def take_stored_report(
    services: Services, actor: Actor, project_id: UUID, sop_instance_uid: str
) -> dict[str, int]:
    """A report that was just stored. Raises UnreadableReport for one that holds no measurements, and when all are refused."""
    results = await import_stored_report(services, actor, project_id, sop_instance_uid)
    counted = {
        "created": sum(one.status == 201 for one in results),
        "known": sum(one.status == 200 for one in results),
        "refused": sum(one.problem is not None for one in results),
    }
    if counted["refused"] == len(results):
        why = results[0].problem or {}
        raise UnreadableReport(
            str(why.get("detail") or why.get("title") or "No annotation of the report can be taken.")
        )
    return counted


async def import_report(services: Services, actor: Actor, project_id: UUID, data: bytes) -> list[Result]:
    """A report as it was sent."""
    if len(data) > MAX_REPORT_BYTES:
        raise TooLarge("The report is over the limit.", limit_bytes=MAX_REPORT_BYTES)
    try:
        dataset = await asyncio.to_thread(lambda: dcmread(io.BytesIO(data)))
    except UNREADABLE as error:
        raise UnreadableReport("The bytes are no DICOM file.") from error
    return await _import_report(services, actor, project_id, dataset)


async def _import_report(services: Services, actor: Actor, project_id: UUID, dataset: Dataset) -> list[Result]:
    try:
        groups = await asyncio.to_thread(read_report, dataset)
    except UNREADABLE as error:
        raise UnreadableReport("The object is no measurement report that can be read.") from error
    _limit(len(groups))
    study = str(dataset.get("StudyInstanceUID", ""))
    series = _series_of_evidence(dataset)
    try:
        news = [
            _new(project_id, study, series, from_group(group), _own_tracking_uid(project_id, dataset, number))
            for number, group in enumerate(groups)
        ]
    except msgspec.ValidationError as error:
        raise UnreadableReport("The report holds values that no annotation can have.") from error
    return await take_in(services, actor, news)


def _own_tracking_uid(project_id: UUID, report: Dataset, number: int) -> str | None:
    """For a group without one: the same report twice makes nothing twice. A UUID-derived UID (PS3.5 B.2)."""
    sop_instance_uid = str(report.get("SOPInstanceUID", ""))
    return f"2.25.{uuid5(project_id, f'{sop_instance_uid} group {number}').int}" if sop_instance_uid else None


def _new(project_id: UUID, study: str, series: dict[str, str], found: Found, own: str | None) -> NewAnnotation:
    image = found.image
    return msgspec.convert(
        {
            "project_id": str(project_id),
            "study_instance_uid": study,
            "series_instance_uid": series.get(image.sop_instance_uid) if image else None,
            "sop_instance_uid": image.sop_instance_uid if image else None,
            "frame_number": image.frame_number if image else None,
            "kind": found.kind,
            "geometry": msgspec.to_builtins(found.geometry),
            "label": msgspec.to_builtins(found.label),
            "measurements": msgspec.to_builtins(found.measurements),
            "description": found.description,
            "tracking_uid": found.tracking_uid or own,
        },
        NewAnnotation,
    )


def _series_of_evidence(dataset: Dataset) -> dict[str, str]:
    """The series of each instance that the report names as evidence (PS3.3 C.17.2)."""
    series: dict[str, str] = {}
    for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in dataset.get(name) or []:
            for one in study.get("ReferencedSeriesSequence") or []:
                for instance in one.get("ReferencedSOPSequence") or []:
                    series[str(instance.get("ReferencedSOPInstanceUID", ""))] = str(one.get("SeriesInstanceUID", ""))
    return series


def _limit(count: int) -> None:
    if count > MAX_ITEMS:
        raise TooLarge(f"One file takes {MAX_ITEMS} annotations.", limit_items=MAX_ITEMS)
    if count == 0:
        raise BadRequest("The file holds no annotation.")
