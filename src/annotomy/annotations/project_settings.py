"""How a project works with annotations."""

from uuid import UUID

from annotomy.annotations import rights
from annotomy.annotations.schemas import Settings
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.events import Event, emit


async def get_settings(tx: ReadTx, project_id: UUID) -> Settings:
    await rights.require_right(tx, rights.Action.READ, project_id)
    row = await tx.fetchrow("select review_own from annotation_settings where project_id = $1", project_id)
    return Settings() if row is None else Settings(**dict(row))


async def set_settings(tx: WriteTx, project_id: UUID, settings: Settings) -> Settings:
    await rights.require_right(tx, rights.Action.MANAGE, project_id)
    await tx.execute(
        "insert into annotation_settings (project_id, review_own) values ($1, $2)"
        " on conflict (project_id) do update set review_own = excluded.review_own, updated_at = now()",
        project_id, settings.review_own,
    )  # fmt: skip
    await emit(
        tx,
        Event(
            type="annotation_settings.set",
            object_kind="project",
            object_id=str(project_id),
            project_id=project_id,
            data={"review_own": settings.review_own},
        ),
    )
    return settings
