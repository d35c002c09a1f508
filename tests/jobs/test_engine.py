"""Jobs: fenced, retried, given up, cancelled; none lost and none booked twice."""

from typing import Any, ClassVar
from uuid import UUID

import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.errors import Conflict
from annotomy.jobs.handlers import HandlerSpec, JobContext, Reject
from annotomy.jobs.queue import Job, enqueue
from annotomy.services import Services
from tests.support.application import Application
from tests.support.jobs import run_queued_jobs


class Count(Job, frozen=True):
    kind: ClassVar[str] = "count"
    number: int


async def _state(services: Services, job_id: UUID) -> Any:
    async with services.db.read(SYSTEM) as tx:
        return await tx.fetchrow("select state, attempt, problem from jobs where id = $1", job_id)


async def test_a_job_of_a_transaction_that_fails_does_not_exist(application: Application) -> None:
    actor = await application.add_user("asker")
    with pytest.raises(ZeroDivisionError):
        async with application.services.db.write(actor) as tx:
            await enqueue(tx, Count(number=1 // len(await tx.fetch("select 1"))))
            await enqueue(tx, Count(number=1 // 0))
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from jobs") == 0
        assert await tx.fetchval("select count(*) from pgqueuer") == 0


async def test_a_taken_over_attempt_leaves_no_trace(application: Application) -> None:
    actor = await application.add_user("asker")

    async def run(services: Services, job: Count, context: JobContext) -> None:
        async with services.db.write(SYSTEM) as tx:  # another worker begins the job meanwhile
            await tx.execute("update jobs set attempt = attempt + 1 where id = $1", context.id)
        async with services.db.write(SYSTEM) as tx:
            await tx.execute("insert into blobs (address, size) values ($1, 1)", f"effect {job.number}")
            await context.finish(tx)

    async with application.services.db.write(actor) as tx:
        job_id = await enqueue(tx, Count(number=1))
    await run_queued_jobs(application.services, [HandlerSpec(Count, run)])
    async with application.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from blobs") == 0
    assert (await _state(application.services, job_id))["state"] == "running"


async def test_a_rejected_job_tells_its_problem(application: Application) -> None:
    actor = await application.add_user("asker")

    async def run(services: Services, job: Count, context: JobContext) -> None:
        raise Reject(Conflict("it cannot be"))

    async with application.services.db.write(actor) as tx:
        job_id = await enqueue(tx, Count(number=1))
    await run_queued_jobs(application.services, [HandlerSpec(Count, run)])
    ended = await _state(application.services, job_id)
    assert ended["state"] == "failed"
    assert ended["problem"]["type"] == "urn:annotomy:problem:conflict"


async def test_a_cancelled_job_never_begins_and_is_its_askers_alone(application: Application) -> None:
    headers, stranger = await application.headers("asker"), await application.headers("stranger")
    me = (await application.client.get("/api/v1/users/me", headers=headers)).json()
    begun: list[int] = []

    async def run(services: Services, job: Count, context: JobContext) -> None:
        begun.append(job.number)

    async with application.services.db.write(Actor(UUID(me["id"]), "asker")) as tx:
        job_id = await enqueue(tx, Count(number=1))
    assert (await application.client.get(f"/api/v1/jobs/{job_id}", headers=stranger)).status_code == 404
    cancelled = await application.client.post(f"/api/v1/jobs/{job_id}/cancel", headers=headers)
    assert cancelled.json()["state"] == "cancelled"
    await run_queued_jobs(application.services, [HandlerSpec(Count, run)])
    assert begun == []
