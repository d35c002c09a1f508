"""Who may look into the audit, and what is found there."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.audit import Entry
from annotomy.db.engine import Database, ReadTx
from annotomy.errors import BadRequest, Forbidden
from annotomy.projects.access import VALID, Permission, require_global, require_scope

Order = Literal["oldest", "newest"]
BATCH_RECORDS = 1000
"""Records of an export in memory at once; each batch is a short transaction of its own, however slowly a client reads."""


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Conditions that all hold. What was asked for is recorded with the view or the export."""

    since: datetime | None = None
    until: datetime | None = None
    actor: str | None = None
    """A user's id or name."""
    action: str | None = None
    """An action, or what stands before its dot."""
    object_kind: str | None = None
    object_id: str | None = None
    study_instance_uid: str | None = None
    project_id: UUID | None = None
    patient: str | None = None
    """The pseudonym that another record tells."""
    outcome: str | None = None
    credential_id: UUID | None = None
    """A session or an API key."""
    source: str | None = None
    request_id: str | None = None
    reason: str | None = None
    """Part of the reason's text, in any case."""


class AuditLine(msgspec.Struct, frozen=True):
    seq: int
    at: datetime
    actor_id: UUID
    actor: str
    actor_kind: str
    session_id: UUID | None
    key_id: UUID | None
    source: str
    action: str
    object: dict[str, str]
    """kind and id"""
    study_instance_uid: str
    patient: str
    """A pseudonym: the same for all records about one patient."""
    project_id: UUID | None
    outcome: str
    reason: str
    request_id: str
    detail: dict[str, Any]


def line_of(row: Any) -> AuditLine:
    return AuditLine(
        seq=row["seq"],
        at=row["at"],
        actor_id=row["actor_id"],
        actor=row["actor_name"],
        actor_kind=row["actor_kind"],
        session_id=row["session_id"],
        key_id=row["key_id"],
        source=row["source"],
        action=row["action"],
        object={"kind": row["object_kind"], "id": row["object_id"]},
        study_instance_uid=row["study_instance_uid"],
        patient=row["patient"],
        project_id=row["project_id"],
        outcome=row["outcome"],
        reason=row["reason"],
        request_id=row["request_id"],
        detail=msgspec.json.decode(row["detail"]),
    )


async def require_whole_audit(tx: ReadTx, actor: Actor) -> None:
    await require_global(tx, actor, Permission.AUDIT_READ)


async def auditable_projects(tx: ReadTx, actor: Actor) -> list[UUID] | None:
    """None: all records. Else the projects whose records the actor may see. Raises Forbidden when there are none."""
    if actor.kind == "system":  # the command line, which has the database and the key
        return None
    require_scope(actor, Permission.AUDIT_READ)
    try:
        await require_global(tx, actor, Permission.AUDIT_READ)
    except Forbidden:
        rows = await tx.fetch(
            "select m.project_id from project_members m where m.user_id = $1 and 'audit.read' = any (m.permissions)"
            f" and {VALID} and ($2::uuid[] is null or m.project_id = any ($2))",
            actor.user_id, actor.project_ids,
        )  # fmt: skip
        if not rows:
            raise
        return [row["project_id"] for row in rows]
    return None


def looked_at(action: str, asked: AuditFilter, **more: object) -> Entry:
    """The record of a look into the log: by which conditions."""
    return Entry(
        action=action,
        object_kind="audit",
        object_id="",
        project_id=asked.project_id,
        detail={"filter": msgspec.to_builtins(asked), **more},
    )


async def search(
    tx: ReadTx, asked: AuditFilter, projects: list[UUID] | None, *, after: int = 0, order: Order = "oldest", limit: int
) -> list[Any]:
    """Rows beyond the place `after` in the order (0: from its beginning); one more than the limit when there are more."""
    condition, values = _where(asked, projects)
    if after or order == "oldest":
        values.append(after)
        condition += f" and seq {'>' if order == 'oldest' else '<'} ${len(values)}"
    direction = "asc" if order == "oldest" else "desc"
    return await tx.fetch(f"select * from audit where {condition} order by seq {direction} limit {limit + 1}", *values)


async def count(tx: ReadTx, asked: AuditFilter, projects: list[UUID] | None) -> int:
    condition, values = _where(asked, projects)
    return await tx.fetchval(f"select count(*) from audit where {condition}", *values)


async def batches(db: Database, actor: Actor, asked: AuditFilter, *, upto: int) -> AsyncIterator[list[AuditLine]]:
    """All that is found up to a place, in order. Rights are decided anew for each batch: an export ends with them."""
    after = 0
    while True:
        async with db.read(actor) as tx:
            projects = await auditable_projects(tx, actor)
            rows = await search(tx, asked, projects, after=after, limit=BATCH_RECORDS)
        lines = [line_of(row) for row in rows[:BATCH_RECORDS] if row["seq"] <= upto]
        if lines:
            yield lines
        if len(rows) <= BATCH_RECORDS or not lines or rows[BATCH_RECORDS]["seq"] > upto:
            return
        after = lines[-1].seq


def _where(asked: AuditFilter, projects: list[UUID] | None) -> tuple[str, list[Any]]:
    conditions, values = ["true"], list[Any]()

    def where(condition: str, value: object) -> None:
        values.append(value)
        conditions.append(condition.replace("$", f"${len(values)}"))

    if projects is not None:
        where("project_id = any ($::uuid[])", projects)
    if asked.actor is not None:
        try:
            where("actor_id = $", UUID(asked.actor))
        except ValueError:
            where("actor_name = $", asked.actor)
    for condition, value in (
        ("object_kind = $", asked.object_kind),
        ("object_id = $", asked.object_id),
        ("study_instance_uid = $ and study_instance_uid <> ''", asked.study_instance_uid),
        ("project_id = $", asked.project_id),
        ("patient = $ and patient <> ''", asked.patient),
        ("outcome = $", asked.outcome),
        ("(session_id = $ or key_id = $)", asked.credential_id),
        ("source = $", asked.source),
        ("request_id = $", asked.request_id),
        ("at >= $", _aware(asked.since)),
        ("at < $", _aware(asked.until)),
        ("(action = $ or starts_with(action, $ || '.'))", asked.action),
    ):
        if value is not None:
            where(condition, value)
    if asked.reason is not None:
        pattern = "".join(f"\\{mark}" if mark in "\\%_" else mark for mark in asked.reason)
        where("reason <> '' and normalize(lower(reason), NFD) like '%' || normalize(lower($), NFD) || '%'", pattern)
    return " and ".join(conditions), values


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise BadRequest("A time carries its offset from UTC.")
    return moment
