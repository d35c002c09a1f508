"""/api/v1/jobs: one's own jobs."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx
from annotomy.errors import NotFound
from annotomy.http.pages import Page
from annotomy.services import Services


class JobAnswer(msgspec.Struct, frozen=True):
    id: UUID
    kind: str
    state: str
    progress: float
    message: str
    attempts: int
    problem: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


_SELECT = (
    "select id, kind, state, progress, message, attempt as attempts, problem, created_at, started_at, finished_at from jobs"
    " where asker_id = $1"
)


@get("/", operation_id="ListJobs", opt={"permission": "own"})
async def list_jobs(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[JobAnswer]:
    """One's newest jobs."""
    async with services.db.read(actor) as tx:
        rows = await tx.fetch(f"{_SELECT} order by created_at desc, id desc limit 200", actor.user_id)
    return Page(items=[JobAnswer(**dict(row)) for row in rows], next=None, total=None)


@get("/{job_id:uuid}", operation_id="GetJob", opt={"permission": "own"})
async def get_job(
    job_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> JobAnswer:
    async with services.db.read(actor) as tx:
        return await _job(tx, actor, job_id)


@post("/{job_id:uuid}/cancel", status_code=200, operation_id="CancelJob", opt={"permission": "own"})
async def cancel_job(
    job_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> JobAnswer:
    """Ask a job to stop; one that has not begun never begins."""
    async with services.db.write(actor) as tx:
        await tx.execute(
            "update jobs set cancel_requested = true, state = case when state = 'queued' then 'cancelled' else state end,"
            " finished_at = case when state = 'queued' then now() else finished_at end"
            " where id = $1 and asker_id = $2 and state in ('queued', 'running')",
            job_id, actor.user_id,
        )  # fmt: skip
        return await _job(tx, actor, job_id)


async def _job(tx: ReadTx, actor: Actor, job_id: UUID) -> JobAnswer:
    row = await tx.fetchrow(f"{_SELECT} and id = $2", actor.user_id, job_id)
    if row is None:
        raise NotFound("There is no such job of yours.")
    return JobAnswer(**dict(row))


router = Router(path="/jobs", tags=["jobs"], route_handlers=[list_jobs, get_job, cancel_job])
