"""/api/v1/audit: the log for auditors and administrators, its verification and its export."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, JSONBody, QueryParameter
from litestar.response import Stream

from annotomy.actor import Actor
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page
from annotomy.ops import audit_export
from annotomy.ops.audit_chain import AuditChain, Verdict
from annotomy.ops.audit_queue import AuditQueue
from annotomy.ops.audit_search import (
    AuditFilter,
    AuditLine,
    Order,
    auditable_projects,
    count,
    line_of,
    looked_at,
    require_whole_audit,
    search,
)
from annotomy.services import Services


async def provide_filter(
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
    actor_: Annotated[str | None, QueryParameter(name="actor", description="A user's id or name.")] = None,
    action: Annotated[str | None, QueryParameter(description="An action, or what stands before its dot.")] = None,
    object_kind: FromQuery[str | None] = None,
    object_id: Annotated[str | None, QueryParameter(name="object", description="Id or UID of the object.")] = None,
    study_instance_uid: FromQuery[str | None] = None,
    project_id: FromQuery[UUID | None] = None,
    patient: Annotated[str | None, QueryParameter(description="The pseudonym that another record tells.")] = None,
    outcome: Annotated[str | None, QueryParameter(description="success, denied, not-found or failure.")] = None,
    credential_id: Annotated[UUID | None, QueryParameter(description="A session or an API key.")] = None,
    source: Annotated[str | None, QueryParameter(description="A network address.")] = None,
    request_id: FromQuery[str | None] = None,
    reason: Annotated[str | None, QueryParameter(max_length=200, description="Part of the reason's text.")] = None,
) -> AuditFilter:
    asked = dict(locals())
    return AuditFilter(actor=asked.pop("actor_"), **asked)


@get("/", operation_id="SearchAudit", opt={"permission": "audit.read"}, dependencies={"asked": provide_filter})
async def list_audit(
    asked: NamedDependency[AuditFilter],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    state: State,
    after: Annotated[int, QueryParameter(ge=0, description="The `seq` beyond which the page begins.")] = 0,
    order: Annotated[Order, QueryParameter(description="Oldest or newest records first.")] = "oldest",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    with_total: Annotated[bool, QueryParameter(description="Count all that matches as well.")] = False,
) -> Page[AuditLine]:
    """Records beyond a place, in their order; `next` is the `after` of the following page. Filters combine. Everything that
    was done before this request is in it. Who may audit single projects gets the records that name them. The look itself is
    recorded, with its filter."""
    async with services.db.read(actor) as tx:
        await auditable_projects(tx, actor)
    await settle(state)
    async with services.db.read(actor) as tx:
        projects = await auditable_projects(tx, actor)
        rows = await search(tx, asked, projects, after=after, order=order, limit=limit)
        total = await count(tx, asked, projects) if with_total else None
    queue: AuditQueue = state.audit_queue
    await queue.note_durably(
        actor, looked_at("audit.viewed", asked, after=after, order=order, records=len(rows[:limit]))
    )
    lines = [line_of(row) for row in rows[:limit]]
    return Page(items=lines, next=str(lines[-1].seq) if len(rows) > limit else None, total=total)


@post("/verify", status_code=200, operation_id="VerifyAudit", opt={"permission": "audit.read"})
async def verify(actor: NamedDependency[Actor], services: NamedDependency[Services], state: State) -> Verdict:
    """Check the whole chain; the first bad record is named by its place."""
    async with services.db.read(actor) as tx:
        await require_whole_audit(tx, actor)
    await settle(state)
    chain: AuditChain = state.audit_chain
    return await chain.verify()


class ExportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: audit_export.Format
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    """Why the log leaves the system; it stands in the record of the export."""
    filter: AuditFilter = msgspec.field(default_factory=AuditFilter)


@post(
    "/export",
    status_code=200,
    operation_id="ExportAudit",
    opt={
        "permission": "audit.read",
        "exclude_from_compression": True,
        "gives": sorted({form.media_type for form in audit_export.FORMS.values()}),
    },
)
async def export(
    data: JSONBody[ExportRequest], actor: NamedDependency[Actor], services: NamedDependency[Services], state: State
) -> Stream:
    """The records that the filter finds, as DICOM audit messages (PS3.15 A.5), FHIR R4 AuditEvents or JSON lines. Recorded,
    with filter and reason, before the first byte."""
    async with services.db.read(actor) as tx:
        await auditable_projects(tx, actor)
    audit_export.require_reason(data.reason)
    await settle(state)
    made = await audit_export.begin(services, actor, data.filter, data.format, reason=data.reason)
    headers = {"Content-Disposition": f'attachment; filename="{made.file_name}"', "Cache-Control": "no-store"}
    return Stream(made.body, media_type=made.media_type, headers=headers)


async def settle(state: State) -> None:
    """What was done before stands in the log."""
    queue: AuditQueue = state.audit_queue
    chain: AuditChain = state.audit_chain
    await queue.drain()
    await chain.append_all()


handlers: list[Any] = [list_audit, verify, export]
router = Router(path="/audit", tags=["audit"], route_handlers=handlers)
