"""/api/v1/annotations/{id}/evidence: pictures of what was seen when a version stood."""

from typing import Any
from uuid import UUID

from litestar import Request, Response, Router, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from annotomy.actor import Actor
from annotomy.annotations import evidence
from annotomy.annotations.errors import EditConflict, InvalidAnnotation
from annotomy.annotations.evidence import MAX_EVIDENCE_BYTES, Evidence
from annotomy.http.pages import Page
from annotomy.services import Services


@get("/{annotation_id:uuid}/evidence", operation_id="ListAnnotationEvidence", opt={"permission": "annotation.read"})
async def list_(
    annotation_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[Evidence]:
    """The newest first; a stale one shows what the annotation does not say any more."""
    async with services.db.read(actor) as tx:
        found = await evidence.list_evidence(tx, annotation_id)
    return Page(items=found, next=None, total=len(found))


@put(
    "/{annotation_id:uuid}/versions/{version:int}/evidence",
    operation_id="AddAnnotationEvidence",
    opt={
        "takes": ["image/png", "image/jpeg"],
        "problems": [InvalidAnnotation, EditConflict],
        "permission": "annotation.edit",
    },
    request_max_body_size=MAX_EVIDENCE_BYTES + 1,
)
async def add(
    annotation_id: FromPath[UUID],
    version: FromPath[int],
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Evidence:
    """Bind a picture to the version that stands. The version has this one for good; the same again is no error."""
    return await evidence.add_evidence(services, actor, annotation_id, version, await request.body())


@get(
    "/{annotation_id:uuid}/versions/{version:int}/evidence",
    operation_id="GetAnnotationEvidence",
    opt={"permission": "annotation.read", "gives": ["image/png", "image/jpeg"]},
)
async def read(
    annotation_id: FromPath[UUID],
    version: FromPath[int],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[bytes]:
    picture, media_type = await evidence.read_evidence(services, actor, annotation_id, version)
    return Response(picture, media_type=media_type)


router = Router(path="/annotations", tags=["annotations"], route_handlers=[list_, add, read])
