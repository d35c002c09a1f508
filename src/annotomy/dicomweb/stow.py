"""STOW-RS (PS3.18 10.5): POST /dicom-web/studies, streamed; an outcome for each instance."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from annotomy.actor import Actor
from annotomy.archive.errors import StoreRefused
from annotomy.archive.quotas import refuse_beyond
from annotomy.archive.spool import spooled
from annotomy.archive.store import Incoming, StoreOutcome, store_instances
from annotomy.dicom.multipart import MultipartError, boundary_of, read_parts
from annotomy.dicomweb.stow_metadata import METADATA_TYPES, asked_type, files_of
from annotomy.errors import BadRequest, NotFound, TooLarge, Unsupported
from annotomy.projects.service import project_for_store
from annotomy.services import Services

MAX_PARTS = 100_000
"""Parts of one request: each has a place in the answer. A sender of more sends several requests."""
DICOM_JSON = "application/dicom+json"
_STORES = {
    "permission": "study.store",
    "takes": ['multipart/related; type="application/dicom"', 'multipart/related; type="application/dicom+json"'],
    "gives": {200: [DICOM_JSON], 202: [DICOM_JSON], 409: [DICOM_JSON]},  # all stored, some refused, all refused
    "problems": [Unsupported, NotFound],
}


@post(
    "/dicom-web/studies",
    status_code=200,
    operation_id="StoreInstances",
    opt=_STORES,
    tags=["dicomweb"],
    request_max_body_size=None,
)
async def store(
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    project_id: Annotated[UUID | None, QueryParameter(description="Project that the studies go to.")] = None,
) -> Response[bytes]:
    """Store DICOM instances."""
    return await _store(request, actor, services, project_id, None)


@post(
    "/dicom-web/studies/{study_instance_uid:str}",
    status_code=200,
    operation_id="StoreInstancesOfStudy",
    opt=_STORES,
    tags=["dicomweb"],
    request_max_body_size=None,
)
async def store_in_study(
    request: Request[Any, Any, Any],
    study_instance_uid: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    project_id: Annotated[UUID | None, QueryParameter(description="Project that the study goes to.")] = None,
) -> Response[bytes]:
    """Store DICOM instances of one study."""
    return await _store(request, actor, services, project_id, study_instance_uid)


async def _store(
    request: Request[Any, Any, Any],
    actor: Actor,
    services: Services,
    project_id: UUID | None,
    study_instance_uid: str | None,
) -> Response[bytes]:
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/related"):
        raise Unsupported('STOW-RS takes multipart/related; type="application/dicom".')
    limit = services.settings.limits.upload_bytes
    announced = request.headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit() and len(announced) <= 18 and int(announced) <= limit):
        raise TooLarge("The request is over the limit.", limit_bytes=limit)
    async with services.db.write(actor) as tx:  # before a byte is read
        project = await project_for_store(tx, actor, project_id)
        over = await refuse_beyond(tx, services.settings.limits, actor.user_id, project, [max(1, int(announced))])
    if over:
        raise over[0]
    apart: list[StoreOutcome] = []
    try:
        incoming = _incoming(request, services, boundary_of(content_type))
        if (kind := asked_type(content_type)) in METADATA_TYPES:
            parts = read_parts(_bounded(request, limit), boundary_of(content_type))
            incoming = files_of(parts, apart)
        elif kind != "application/dicom":
            raise Unsupported("STOW-RS takes application/dicom, application/dicom+json and application/dicom+xml.")
        outcomes = await store_instances(services, actor, project_id, incoming, taking=True) + apart
    except MultipartError as error:
        raise BadRequest(str(error)) from error
    refused = [outcome for outcome in outcomes if outcome.state == "refused"]
    status = 200 if not refused else 202 if len(refused) < len(outcomes) else 409
    return Response(
        msgspec.json.encode(_answer(outcomes, study_instance_uid)), status_code=status, media_type=DICOM_JSON
    )


async def _incoming(request: Request[Any, Any, Any], services: Services, boundary: str) -> AsyncIterator[Incoming]:
    number = 0
    async for part in read_parts(_bounded(request, services.settings.limits.upload_bytes), boundary):
        number += 1
        if number > MAX_PARTS:
            raise TooLarge(f"The request has more than {MAX_PARTS} parts.")
        async with spooled(services, f"part {number}", part.body, prefix="stow") as file:
            yield file


async def _bounded(request: Request[Any, Any, Any], limit: int) -> AsyncIterator[bytes]:
    """The body, counted while it comes: one that comes in chunks announces no length."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise TooLarge("The request is over the limit.", limit_bytes=limit)
        yield piece


def _answer(outcomes: list[StoreOutcome], study_instance_uid: str | None) -> dict[str, Any]:
    """The Store Instances Response Module (PS3.18 Annex I)."""
    kept = [_reference(outcome) for outcome in outcomes if outcome.state != "refused"]
    failed = [
        _reference(outcome) | {"00081197": {"vr": "US", "Value": [_reason(outcome)]}}
        for outcome in outcomes
        if outcome.state == "refused"
    ]
    answer: dict[str, Any] = {}
    if study_instance_uid:
        answer["00081190"] = {"vr": "UR", "Value": [f"/dicom-web/studies/{study_instance_uid}"]}
    if kept:
        answer["00081199"] = {"vr": "SQ", "Value": kept}
    if failed:
        answer["00081198"] = {"vr": "SQ", "Value": failed}
    return answer


def _reference(outcome: StoreOutcome) -> dict[str, Any]:
    reference: dict[str, Any] = {}
    if outcome.sop_class_uid:
        reference["00081150"] = {"vr": "UI", "Value": [outcome.sop_class_uid]}
    if outcome.sop_instance_uid:
        reference["00081155"] = {"vr": "UI", "Value": [outcome.sop_instance_uid]}
    if outcome.state != "refused":
        url = f"/dicom-web/studies/{outcome.study_instance_uid}/series/{outcome.series_instance_uid}"
        reference["00081190"] = {"vr": "UR", "Value": [f"{url}/instances/{outcome.sop_instance_uid}"]}
    return reference


def _reason(outcome: StoreOutcome) -> int:
    return outcome.problem.failure_reason if isinstance(outcome.problem, StoreRefused) else 0x0110


handlers = [store, store_in_study]
