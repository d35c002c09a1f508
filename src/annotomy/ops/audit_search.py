"""Who may look into the audit, and what is found there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx
from annotomy.errors import BadRequest, Forbidden
from annotomy.projects.access import VALID, Permission, require_global, require_scope


@dataclass(frozen=True, slots=True)
class Search:
    after: int
    limit: int
    actor: str | None
    object_id: str | None
    action: str | None
    project_id: UUID | None
    patient: str | None
    outcome: str | None
    since: datetime | None
    until: datetime | None


async def require_whole_audit(tx: ReadTx, actor: Actor) -> None:
    await require_global(tx, actor, Permission.AUDIT_READ)


async def auditable_projects(tx: ReadTx, actor: Actor) -> list[UUID] | None:
    """None: all records. Else the projects whose records the actor may see. Raises Forbidden when there are none."""
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


async def search(tx: ReadTx, asked: Search, projects: list[UUID] | None) -> list[Any]:
    """One row more than the limit when there are more."""
    conditions, values = ["seq > $1"], list[Any]([asked.after])

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
        ("object_id = $", asked.object_id),
        ("project_id = $", asked.project_id),
        ("patient = $", asked.patient),
        ("outcome = $", asked.outcome),
        ("at >= $", _aware(asked.since)),
        ("at < $", _aware(asked.until)),
    ):
        if value is not None:
            where(condition, value)
    if asked.action is not None:
        where("(action = $ or starts_with(action, $ || '.'))", asked.action)
    return await tx.fetch(
        f"select * from audit where {' and '.join(conditions)} order by seq limit {asked.limit + 1}", *values
    )


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise BadRequest("A time carries its offset from UTC.")
    return moment
