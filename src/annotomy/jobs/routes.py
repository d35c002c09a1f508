"""/api/v1/jobs: one's own jobs; an administrator's view of all, and of the queue."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx
from annotomy.errors import Forbidden, NotFound
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page, decode_cursor, encode_cursor
from annotomy.jobs.queue import cancel_job as request_cancel
from annotomy.services import Services

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class JobAnswer(msgspec.Struct, frozen=True, rename={"asker_id": "asked_by"}):
    id: UUID
    kind: str
    state: JobState
    progress: float
    message: str
    attempts: int
    problem: dict[str, Any] | None
    asker_id: UUID
    project_id: UUID | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class QueueKind(msgspec.Struct, frozen=True):
    """Jobs of one kind: how many wait and run, how long the oldest has waited, and how the last hour's ended."""

    kind: str
    queued: int
    running: int
    oldest_queued_s: float
    succeeded_last_hour: int
    failed_last_hour: int
    retried: int
    """Open jobs that were begun more than once."""


class QueueHealth(msgspec.Struct, frozen=True):
    kinds: list[QueueKind]


_SELECT = (
    "select id, kind, state, progress, message, attempt as attempts, problem, asker_id, project_id, created_at,"
    " started_at, finished_at from jobs where (asker_id = $1 or $2)"
    # An API key that is bound to a project reaches the jobs of that project alone.
    " and (nullif(current_setting('app.project', true), '') is null"
    " or project_id = any (nullif(current_setting('app.project', true), '')::uuid[]))"
)
_HEALTH = (
    "select kind, count(*) filter (where state = 'queued') as queued, count(*) filter (where state = 'running') as running,"
    " coalesce(extract(epoch from now() - min(created_at) filter (where state = 'queued')), 0)::float8 as oldest_queued_s,"
    " count(*) filter (where state = 'succeeded') as succeeded_last_hour,"
    " count(*) filter (where state = 'failed') as failed_last_hour,"
    " count(*) filter (where state in ('queued', 'running') and attempt > 1) as retried"
    " from jobs where state in ('queued', 'running') or finished_at > now() - interval '1 hour' group by kind order by kind"
)


@get("/", operation_id="ListJobs", opt={"permission": "own"})
async def list_jobs(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: FromQuery[str | None] = None,
    job_state: Annotated[JobState | None, QueryParameter(name="state")] = None,
    every: Annotated[bool, QueryParameter(name="all", description="Everybody's jobs; for administrators.")] = False,
) -> Page[JobAnswer]:
    """One's jobs, newest first."""
    if every and not actor.is_admin:
        raise Forbidden("Only an administrator sees the jobs of others.")
    # Identifiers sort by the time of their making, so the identifier alone is the keyset.
    after = UUID(str(decode_cursor(cursor, (UUID,))[0])) if cursor else None
    async with services.db.read(actor) as tx:
        rows = await tx.fetch(
            f"{_SELECT} and ($3::uuid is null or id < $3) and ($4::text is null or state = $4) order by id desc limit $5",
            actor.user_id, every, after, job_state, limit + 1,
        )  # fmt: skip
    found = [JobAnswer(**dict(row)) for row in rows[:limit]]
    return Page(items=found, next=encode_cursor(found[-1].id) if len(rows) > limit else None, total=None)


@get("/queue", operation_id="GetQueueHealth", opt={"permission": "system.manage"})
async def queue_health(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> QueueHealth:
    """How the queue does, for administrators: what waits, what runs, what failed of late."""
    if not actor.is_admin:
        raise Forbidden("Only an administrator sees the queue.")
    async with services.db.read(actor) as tx:
        return QueueHealth([QueueKind(**dict(row)) for row in await tx.fetch(_HEALTH)])


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
        await _job(tx, actor, job_id)
        await request_cancel(tx, job_id)
        return await _job(tx, actor, job_id)


async def _job(tx: ReadTx, actor: Actor, job_id: UUID) -> JobAnswer:
    row = await tx.fetchrow(f"{_SELECT} and id = $3", actor.user_id, actor.is_admin, job_id)
    if row is None:
        raise NotFound("There is no such job of yours.")
    return JobAnswer(**dict(row))


router = Router(path="/jobs", tags=["jobs"], route_handlers=[list_jobs, queue_health, get_job, cancel_job])
