"""The engine of a worker: pgqueuer delivers, the `jobs` row is the truth (docs/decisions/0003).

Each start raises `attempt`. The number fences: an attempt that was taken over cannot book its result. A worker killed
in mid-job is noticed by its missing heartbeat, and its job is begun again elsewhere.
"""

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job as Message
from pgqueuer.models import Schedule as Occasion

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import ReadTx
from annotomy.jobs.handlers import Cancelled, Fenced, HandlerSpec, JobContext, Reject, Retry, Schedule
from annotomy.jobs.queue import MAX_ATTEMPTS
from annotomy.services import Services

log = structlog.get_logger(__name__)

HEARTBEAT_TIMEOUT = timedelta(seconds=15)
DEQUEUE_TIMEOUT = timedelta(seconds=5)
BATCH_SIZE = 2
LONGEST_PAUSE_S = 300

PASSING = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
)
"""Failures of the machine or the database that are over sooner or later; a job that meets one is tried again."""


def register(queuer: PgQueuer, services: Services, spec: HandlerSpec) -> None:
    """Lets this worker run jobs of the handler's kind."""

    @queuer.entrypoint(spec.job_type.kind, concurrency_limit=spec.limit)
    async def run(message: Message) -> None:
        await _run(services, spec, UUID(bytes=bytes(message.payload or b"")))

    del run


async def _run(services: Services, spec: HandlerSpec, job_id: UUID) -> None:
    started = await _start(services, job_id)
    if started is None:
        return
    context, payload = started
    bound = log.bind(job_id=str(job_id), kind=spec.job_type.kind, attempt=context.attempt)
    try:
        await _attempt(services, spec, context, payload, bound)
    except (Retry, *PASSING) as error:
        pause = timedelta(seconds=min(LONGEST_PAUSE_S, 2**context.attempt))
        bound.warning("job.retried", reason=type(error).__name__)
        with contextlib.suppress(*PASSING):  # then the row says running, which the next attempt may take as well
            await _end(services, context, "queued", None)
        raise RetryRequested(delay=pause, reason=type(error).__name__) from error


async def _attempt(services: Services, spec: HandlerSpec, context: JobContext, payload: object, bound: Any) -> None:
    try:
        await spec.run(services, msgspec.convert(payload, spec.job_type), context)
    except Fenced:
        bound.warning("job.fenced")
    except Cancelled:
        bound.info("job.cancelled")
        await _end(services, context, "cancelled", None)
    except Reject as error:
        bound.info("job.rejected", slug=error.problem.slug)
        await _end(services, context, "failed", error.problem.to_json())
    except (Retry, *PASSING):
        raise
    except Exception as error:  # noqa: BLE001 - the edge of a job: whatever went wrong is booked as its failure
        # A bug of ours: told as such, never retried blindly. The trace is in the log, values are not.
        bound.exception("job.failed")
        problem = {"type": "urn:annotomy:problem:internal", "title": "The job failed", "detail": type(error).__name__}
        await _end(services, context, "failed", problem)
    else:
        bound.info("job.ended")


async def _start(services: Services, job_id: UUID) -> tuple[JobContext, object] | None:
    async with services.db.write(SYSTEM) as tx:
        row = await tx.fetchrow(
            "update jobs set attempt = attempt + 1, state = 'running', started_at = now() where id = $1"
            " and state in ('queued', 'running') and not cancel_requested and attempt < $2 returning attempt, payload, asker_id",
            job_id, MAX_ATTEMPTS,
        )  # fmt: skip
        if row is None:
            await tx.execute(
                "update jobs set state = case when cancel_requested then 'cancelled' else 'failed' end, finished_at = now(),"
                " problem = case when cancel_requested then null else $2::jsonb end"
                " where id = $1 and state in ('queued', 'running')",
                job_id, {"type": "urn:annotomy:problem:too-many-attempts", "detail": "Every attempt ended without a result."},
            )  # fmt: skip
            return None
        asker = await _asker(tx, row["asker_id"])
        if asker is None:
            await tx.execute("update jobs set state = 'cancelled', finished_at = now() where id = $1", job_id)
            return None
    return JobContext(services, job_id, asker, row["attempt"]), row["payload"]


async def _asker(tx: ReadTx, asker_id: UUID) -> Actor | None:
    """Who asked, with today's rights; None for somebody who is not active any more. The system asks for mails to people
    who cannot sign in."""
    if asker_id == SYSTEM.user_id:
        return SYSTEM
    user = await tx.fetchrow("select username, is_admin from users where id = $1 and state = 'active'", asker_id)
    return Actor(user_id=asker_id, name=user["username"], is_admin=user["is_admin"]) if user else None


async def _end(services: Services, context: JobContext, state: str, problem: object) -> None:
    async with services.db.write(SYSTEM) as tx:
        await tx.execute(
            "update jobs set state = $3, problem = $4, finished_at = case when $3 = 'queued' then null else now() end"
            " where id = $1 and attempt = $2 and state = 'running'",
            context.id, context.attempt, state, problem,
        )  # fmt: skip


def register_schedule(queuer: PgQueuer, services: Services, schedule: Schedule) -> None:
    """Lets this worker do the upkeep when it is due; the queue sees to it that only one does."""

    @queuer.schedule(schedule.name, schedule.expression, clean_old=True)
    async def run(_: Occasion) -> None:
        try:
            await schedule.run(services)
        except Exception:
            log.exception("schedule.failed", name=schedule.name)

    del run


def queuer_for(
    connection: asyncpg.Connection,
    services: Services,
    specs: list[HandlerSpec],
    schedules: Sequence[Schedule] = (),
) -> PgQueuer:
    queuer = PgQueuer(AsyncpgDriver(connection))
    for spec in specs:
        register(queuer, services, spec)
    for schedule in schedules:
        register_schedule(queuer, services, schedule)
    return queuer
