"""/api/v1/annotations/export and /import: annotations as files."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from annotomy.actor import Actor
from annotomy.annotations import export, intake
from annotomy.annotations.batch import BatchAnswer, Result
from annotomy.annotations.errors import UnreadableReport
from annotomy.annotations.export import MEDIA_TYPES, Format
from annotomy.annotations.list_routes import provide_filter
from annotomy.annotations.query import Filter
from annotomy.errors import BadRequest
from annotomy.identity.credentials import require_fresh
from annotomy.services import Services

AnyRequest = Request[Any, Any, Any]


class StoredReport(msgspec.Struct, frozen=True):
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    included: int
    left_out: list[str]
    """Annotations that a report has no place for."""


@get(
    "/export",
    operation_id="ExportAnnotations",
    opt={"permission": "annotation.read", "gives": ["application/json", "text/csv", "application/dicom"]},
    exclude_from_compression=True,
)
async def export_(
    asked: NamedDependency[Filter],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    form: Annotated[Format, QueryParameter(name="format", description="sr is of one study, gsps of one series.")],
) -> Response[bytes]:
    """A file of what the filter of the list finds. `Annotomy-Left-Out` counts what the format has no place for."""
    await require_fresh(services, actor)
    made = await export.export_annotations(services, actor, asked, form)
    suffix = {"json": "json", "csv": "csv", "coco": "coco.json", "sr": "dcm", "gsps": "dcm"}[form]
    headers = {
        "Content-Disposition": f'attachment; filename="annotations.{suffix}"',
        "Annotomy-Included": str(made.included),
        "Annotomy-Left-Out": str(len(made.left_out)),
        "Cache-Control": "no-store",
    }
    return Response(made.body, media_type=MEDIA_TYPES[form], headers=headers)


@post(
    "/export/sr",
    operation_id="StoreAnnotationReport",
    opt={"problems": [UnreadableReport], "permission": "study.store"},
)
async def store_report(
    asked: NamedDependency[Filter], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> StoredReport:
    """Write the annotations of a study as DICOM SR into the archive."""
    stored = await export.store_report(services, actor, asked)
    return StoredReport(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, stored.included, stored.left_out
    )


@post(
    "/import",
    status_code=200,
    operation_id="ImportAnnotations",
    opt={
        "takes": ["application/json", "application/dicom"],
        "problems": [UnreadableReport],
        "permission": "annotation.write",
    },
    request_max_body_size=intake.MAX_REPORT_BYTES,
)
async def import_(
    request: AnyRequest,
    project_id: FromQuery[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    sop_instance_uid: Annotated[
        str | None, QueryParameter(description="A report in the archive, instead of a body.")
    ] = None,
) -> BatchAnswer:
    """Take in our JSON (application/json) or a DICOM SR (application/dicom), with a result for each annotation."""
    if sop_instance_uid is not None:
        return _answer(await intake.import_stored_report(services, actor, project_id, sop_instance_uid))
    body = await request.body()
    if request.headers.get("content-type", "").startswith("application/dicom"):
        return _answer(await intake.import_report(services, actor, project_id, body))
    try:
        plain = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise BadRequest("Send the JSON that the export writes, or a DICOM SR as application/dicom.") from error
    return _answer(await intake.import_json(services, actor, project_id, plain))


def _answer(results: list[Result]) -> BatchAnswer:
    failed = sum(result.problem is not None for result in results)
    return BatchAnswer(results, succeeded=len(results) - failed, failed=failed)


router = Router(
    path="/annotations",
    tags=["annotations"],
    route_handlers=[export_, store_report, import_],
    dependencies={"asked": provide_filter},
)
