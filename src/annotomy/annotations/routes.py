"""/api/v1/annotations: one annotation at a time, and its history. `list_routes.py` and `batch_routes.py` take many."""

from typing import Annotated, Any
from uuid import UUID

from litestar import MediaType, Request, Response, Router, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.annotations import history, service
from annotomy.annotations.annotate import create_annotation, edit_annotation
from annotomy.annotations.errors import InvalidAnnotation
from annotomy.annotations.schemas import Annotation, NewAnnotation, Restore, Version, VersionEntry
from annotomy.http.etags import etag, expected_version
from annotomy.http.idempotency import Answer, keyed
from annotomy.http.pages import Page
from annotomy.http.reasons import Reason, reason_of
from annotomy.services import Services

IfMatch = Annotated[str | None, HeaderParameter(name="If-Match", description="The ETag of the version that was read.")]
IdempotencyKey = Annotated[
    str | None, HeaderParameter(name="Idempotency-Key", description="Sent again with a repeated request.")
]
AnyRequest = Request[Any, Any, Any]
ANNOTATION_ANSWER = {200: ResponseSpec(data_container=Annotation, generate_examples=False)}


def bytes_of(answer: Answer) -> Response[bytes]:
    return Response(answer.body, status_code=answer.status, headers=answer.headers, media_type=MediaType.JSON)


@post(
    "/",
    operation_id="CreateAnnotation",
    opt={"problems": [InvalidAnnotation], "permission": "annotation.write"},
    responses={201: ResponseSpec(data_container=Annotation, generate_examples=False)},
)
async def create(
    data: JSONBody[NewAnnotation],
    request: AnyRequest,
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Create an annotation; the server measures it."""
    asked = keyed(actor, "POST /annotations", idempotency_key, await request.body()) if idempotency_key else None
    return bytes_of(await create_annotation(services, actor, data, asked=asked))


@get("/{annotation_id:uuid}", operation_id="GetAnnotation", opt={"permission": "annotation.read"})
async def read(
    annotation_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[Annotation]:
    async with services.db.read(actor, keep_plans=True) as tx:
        found = await service.get(tx, annotation_id)
    return _annotation(found)


@patch(
    "/{annotation_id:uuid}",
    operation_id="EditAnnotation",
    opt={"problems": [InvalidAnnotation], "permission": "annotation.edit"},
    responses=ANNOTATION_ANSWER,
)
async def edit(
    annotation_id: FromPath[UUID],
    request: AnyRequest,
    data: JSONBody[dict[str, Any]],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Make the next version by a JSON merge patch (RFC 7396); a member `why` says why. A lost race offers a merge."""
    version = expected_version(if_match)
    route = f"PATCH /annotations/{annotation_id}"
    asked = (
        keyed(actor, route, idempotency_key, f"{version} ".encode() + await request.body()) if idempotency_key else None
    )
    return bytes_of(await edit_annotation(services, actor, annotation_id, data, expected_version=version, asked=asked))


@delete(
    "/{annotation_id:uuid}", status_code=204, operation_id="DeleteAnnotation", opt={"permission": "annotation.delete"}
)
async def remove(
    annotation_id: FromPath[UUID],
    request: AnyRequest,
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
) -> Response[None]:
    """Delete by a version that says so; any version can be restored. A body may say why: `{"why": "..."}`."""
    why = await reason_of(request)
    async with services.db.write(actor, keep_plans=True) as tx:
        made = await service.delete(tx, annotation_id, expected_version=expected_version(if_match), why=why)
    return Response(None, status_code=204, headers={"ETag": etag(made.version)})


@post(
    "/{annotation_id:uuid}/restore",
    status_code=200,
    operation_id="RestoreAnnotation",
    opt={"problems": [InvalidAnnotation], "permission": "annotation.edit"},
)
async def restore(
    annotation_id: FromPath[UUID],
    data: JSONBody[Restore],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
) -> Response[Annotation]:
    """Make a new version with the content of an old one. Nothing is lost by it, so that If-Match may be left out."""
    expected = None if if_match is None else expected_version(if_match)
    async with services.db.write(actor, keep_plans=True) as tx:
        made = await service.restore(tx, annotation_id, data.version, expected_version=expected, why=data.why)
    return _annotation(made)


async def _step(
    services: Services,
    actor: Actor,
    annotation_id: UUID,
    step: service.Step,
    reason: Reason | None,
    if_match: str | None,
) -> Response[Annotation]:
    async with services.db.write(actor, keep_plans=True) as tx:
        made = await service.take_step(
            tx, annotation_id, step, expected_version=expected_version(if_match), why=(reason or Reason()).why
        )
    return _annotation(made)


@post(
    "/{annotation_id:uuid}/submit",
    status_code=200,
    operation_id="SubmitAnnotation",
    opt={"problems": [InvalidAnnotation], "permission": "annotation.edit"},
)
async def submit(
    annotation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    data: JSONBody[Reason | None] = None,
    if_match: IfMatch = None,
) -> Response[Annotation]:
    """Hand in for review."""
    return await _step(services, actor, annotation_id, "submit", data, if_match)


@post(
    "/{annotation_id:uuid}/approve",
    status_code=200,
    operation_id="ApproveAnnotation",
    opt={"problems": [InvalidAnnotation], "permission": "review"},
)
async def approve(
    annotation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    data: JSONBody[Reason | None] = None,
    if_match: IfMatch = None,
) -> Response[Annotation]:
    """Approve the version that was looked at."""
    return await _step(services, actor, annotation_id, "approve", data, if_match)


@post(
    "/{annotation_id:uuid}/reject",
    status_code=200,
    operation_id="RejectAnnotation",
    opt={"problems": [InvalidAnnotation], "permission": "review"},
)
async def reject(
    annotation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    data: JSONBody[Reason | None] = None,
    if_match: IfMatch = None,
) -> Response[Annotation]:
    """Send back to its author."""
    return await _step(services, actor, annotation_id, "reject", data, if_match)


@post(
    "/{annotation_id:uuid}/reopen",
    status_code=200,
    operation_id="ReopenAnnotation",
    opt={"problems": [InvalidAnnotation], "permission": "annotation.edit"},
)
async def reopen(
    annotation_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    data: JSONBody[Reason | None] = None,
    if_match: IfMatch = None,
) -> Response[Annotation]:
    """Make a draft of it again."""
    return await _step(services, actor, annotation_id, "reopen", data, if_match)


@get("/{annotation_id:uuid}/versions", operation_id="ListAnnotationVersions", opt={"permission": "annotation.read"})
async def versions(
    annotation_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[VersionEntry]:
    """Who changed what, when and why; the newest first."""
    async with services.db.read(actor) as tx:
        found = await history.list_versions(tx, annotation_id)
    return Page(items=found, next=None, total=len(found))


@get(
    "/{annotation_id:uuid}/versions/{version:int}",
    operation_id="GetAnnotationVersion",
    opt={"permission": "annotation.read"},
)
async def version(
    annotation_id: FromPath[UUID],
    version: FromPath[int],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    against: Annotated[int | None, QueryParameter(description="Compare with this version, not the one before.")] = None,
) -> Version:
    """One version and how it differs from the one before."""
    async with services.db.read(actor) as tx:
        return await history.get_version(tx, annotation_id, version, against=against)


def _annotation(found: Annotation) -> Response[Annotation]:
    return Response(found, headers={"ETag": etag(found.version)})


router = Router(
    path="/annotations",
    tags=["annotations"],
    route_handlers=[create, read, edit, remove, restore, submit, approve, reject, reopen, versions, version],
)
