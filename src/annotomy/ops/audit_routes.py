"""/api/v1/audit: the log for auditors and administrators, and its verification."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from annotomy.actor import Actor
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page
from annotomy.ops.audit_chain import AuditChain, Verdict
from annotomy.ops.audit_queue import AuditQueue
from annotomy.ops.audit_search import Search, auditable_projects, require_whole_audit, search
from annotomy.services import Services


class AuditLine(msgspec.Struct, frozen=True):
    seq: int
    at: datetime
    actor_id: UUID
    actor: str
    actor_kind: str
    session_id: UUID | None
    source: str
    action: str
    object: dict[str, str]
    """kind and id"""
    patient: str
    """A pseudonym: the same for all records about one patient."""
    project_id: UUID | None
    outcome: str
    reason: str
    request_id: str
    detail: dict[str, Any]


@get("/", operation_id="SearchAudit", opt={"permission": "audit.read", "audit": "audit.viewed"})
async def list_audit(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    state: State,
    after: FromQuery[int] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    by: Annotated[str | None, QueryParameter(name="actor", description="user id or name")] = None,
    object_id: Annotated[str | None, QueryParameter(name="object", description="id or UID of the object")] = None,
    action: Annotated[str | None, QueryParameter(description="an action, or what stands before its dot")] = None,
    project_id: FromQuery[UUID | None] = None,
    patient: Annotated[str | None, QueryParameter(description="the pseudonym that another record tells")] = None,
    outcome: FromQuery[str | None] = None,
    since: FromQuery[datetime | None] = None,
    until: FromQuery[datetime | None] = None,
) -> Page[AuditLine]:
    """Records after a place, in their order; `next` is the `after` of the following page. Everything that was done before
    this request is in it. Who may audit single projects gets the records that name them."""
    async with services.db.read(actor) as tx:
        projects = await auditable_projects(tx, actor)
    await _settle(state)
    asked = Search(after, limit, by, object_id, action, project_id, patient, outcome, since, until)
    async with services.db.read(actor) as tx:
        rows = await search(tx, asked, projects)
    lines = [_line(row) for row in rows[:limit]]
    return Page(items=lines, next=str(lines[-1].seq) if len(rows) > limit else None, total=None)


@post("/verify", status_code=200, operation_id="VerifyAudit", opt={"permission": "audit.read"})
async def verify(actor: NamedDependency[Actor], services: NamedDependency[Services], state: State) -> Verdict:
    """Check the whole chain; the first bad record is named by its place."""
    async with services.db.read(actor) as tx:
        await require_whole_audit(tx, actor)
    await _settle(state)
    chain: AuditChain = state.audit_chain
    return await chain.verify()


async def _settle(state: State) -> None:
    queue: AuditQueue = state.audit_queue
    chain: AuditChain = state.audit_chain
    await queue.drain()
    await chain.append_all()


def _line(row: Any) -> AuditLine:
    return AuditLine(
        seq=row["seq"],
        at=row["at"],
        actor_id=row["actor_id"],
        actor=row["actor_name"],
        actor_kind=row["actor_kind"],
        session_id=row["session_id"],
        source=row["source"],
        action=row["action"],
        object={"kind": row["object_kind"], "id": row["object_id"]},
        patient=row["patient"],
        project_id=row["project_id"],
        outcome=row["outcome"],
        reason=row["reason"],
        request_id=row["request_id"],
        detail=msgspec.json.decode(row["detail"]),
    )


router = Router(path="/audit", tags=["audit"], route_handlers=[list_audit, verify])
