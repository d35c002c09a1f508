"""/api/v1/audit: reports over the log, the monthly review and its signature, the sealed segments."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream

from annotomy.actor import Actor
from annotomy.http.pages import Page
from annotomy.ops.audit_export import require_reason
from annotomy.ops.audit_queue import AuditQueue
from annotomy.ops.audit_review import Report, Review, get_review, list_reviews, report, sign_review
from annotomy.ops.audit_review_page import POLICY, page_of
from annotomy.ops.audit_routes import settle
from annotomy.ops.audit_search import AuditFilter, auditable_projects, looked_at, require_whole_audit
from annotomy.ops.audit_segments import Segment, list_segments, segment_address
from annotomy.origin import ORIGIN
from annotomy.services import Services


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    note: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    """What was found, and what was done about it."""


@get("/report", operation_id="ReportOnAudit", opt={"permission": "audit.read"})
async def get_report(
    since: FromQuery[datetime],
    until: FromQuery[datetime],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    state: State,
    project_id: FromQuery[UUID | None] = None,
) -> Report:
    """Who read and downloaded whose data how often, at what hours and in bulk; failed sign-ins, changed rights, exports with
    their reasons. Who audits single projects gets a report on these. Recorded as a look into the log."""
    async with services.db.read(actor) as tx:
        projects = await auditable_projects(tx, actor)
    await settle(state)
    if project_id is not None:
        projects = [project_id] if projects is None or project_id in projects else []
    async with services.db.read(actor) as tx:
        made = await report(tx, services.settings.audit, since, until, projects)
    asked = AuditFilter(since=since, until=until, project_id=project_id)
    queue: AuditQueue = state.audit_queue
    await queue.note_durably(actor, looked_at("audit.viewed", asked, report=True))
    return made


@get(
    "/reviews",
    operation_id="ListAuditReviews",
    opt={"permission": "audit.read", "audit": "audit.viewed", "audit_first": True},
)
async def get_reviews(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[Review]:
    """The months that are over, the newest first, and who signed their review. Without the reports."""
    async with services.db.read(actor) as tx:
        await require_whole_audit(tx, actor)
        reviews = await list_reviews(tx)
    return Page(items=reviews, next=None, total=len(reviews))


@get(
    "/reviews/{month:str}",
    operation_id="GetAuditReview",
    opt={"permission": "audit.read", "audit": "audit.viewed", "audit_first": True},
)
async def get_one_review(
    month: FromPath[str], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Review:
    """The review of a month (2026-10), with its report."""
    async with services.db.read(actor) as tx:
        await require_whole_audit(tx, actor)
        return await get_review(tx, month)


@get(
    "/reviews/{month:str}/page",
    operation_id="GetAuditReviewPage",
    opt={"permission": "audit.read", "audit": "audit.viewed", "audit_first": True},
    media_type="text/html",
)
async def get_review_page(
    month: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    language: Annotated[Literal["en", "ko"] | None, QueryParameter(description="Default: the server's.")] = None,
) -> Response[str]:
    """The same as a page to read and to print, in Korean or English."""
    async with services.db.read(actor) as tx:
        await require_whole_audit(tx, actor)
        review = await get_review(tx, month)
    page = page_of(review, language or ("ko" if services.settings.language == "ko" else "en"))
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@post(
    "/reviews/{month:str}/sign",
    status_code=200,
    operation_id="SignAuditReview",
    opt={"permission": "audit.read"},
)
async def sign(
    month: FromPath[str], data: JSONBody[Signature], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Review:
    """Say that one has looked through the month. Once; recorded under one's name."""
    async with services.db.write(actor) as tx:
        await require_whole_audit(tx, actor)
        return await sign_review(tx, month, data.note)


@get("/segments", operation_id="ListAuditSegments", opt={"permission": "audit.read"})
async def get_segments(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[Segment]:
    """The sealed segments of the log, the oldest first; until when their records stay, or since when they are in the file
    alone."""
    async with services.db.read(actor) as tx:
        await require_whole_audit(tx, actor)
        segments = await list_segments(tx)
    return Page(items=segments, next=None, total=len(segments))


@get(
    "/segments/{number:int}/file",
    operation_id="RetrieveAuditSegment",
    opt={
        "permission": "audit.read",
        "audit": "audit.exported",
        "audit_first": True,
        "exclude_from_compression": True,
        "gives": ["application/gzip"],
    },
)
async def get_segment_file(
    number: FromPath[int], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Stream:
    """The file of a segment (gzip of JSON lines), which `annotomy audit verify --segment FILE` verifies anywhere. An export:
    it needs a reason, in `Annotomy-Reason` or `?download_reason=`."""
    async with services.db.read(actor) as tx:
        await require_whole_audit(tx, actor)
        segment, address = await segment_address(tx, number)
    require_reason(ORIGIN.get().reason)
    name = f"audit-{segment.number:04}-{segment.month}.jsonl.gz"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Stream(services.blobs.stream(address), media_type="application/gzip", headers=headers)


router = Router(
    path="/audit",
    tags=["audit"],
    route_handlers=[get_report, get_reviews, get_one_review, get_review_page, sign, get_segments, get_segment_file],
)
