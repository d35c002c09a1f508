"""/api/v1/jobs: one's own by pages; everybody's and the queue's health for administrators."""

from typing import ClassVar
from uuid import UUID

import asyncpg
import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.jobs.handlers import Cancelled, HandlerSpec, JobContext, Retry
from annotomy.jobs.queue import Job, enqueue
from annotomy.services import Services
from tests.support.application import Application
from tests.support.jobs import run_queued_jobs


class Step(Job, frozen=True):
    kind: ClassVar[str] = "step"
    number: int


async def enqueued(application: Application, actor: Actor, count: int) -> list[str]:
    found: list[str] = []
    for number in range(count):
        async with application.services.db.write(actor) as tx:
            found.append(str(await enqueue(tx, Step(number=number))))
    return found


async def me(application: Application, username: str) -> tuple[dict[str, str], Actor]:
    headers = await application.headers(username)
    answer = (await application.client.get("/api/v1/users/me", headers=headers)).json()
    return headers, Actor(UUID(answer["id"]), username)


async def pages(application: Application, headers: dict[str, str], query: str) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        answer = await application.client.get(f"/api/v1/jobs?{query}{cursor}", headers=headers)
        assert answer.status_code == 200, answer.text
        found += [item["id"] for item in answer.json()["items"]]
        if answer.json()["next"] is None:
            return found
        cursor = f"&cursor={answer.json()['next']}"


async def test_jobs_are_paged_newest_first_and_are_ones_own(application: Application) -> None:
    headers, asker = await me(application, "asker")
    other_headers, other = await me(application, "other")
    mine = await enqueued(application, asker, 5)
    theirs = await enqueued(application, other, 1)
    assert await pages(application, headers, "limit=2") == mine[::-1]
    assert await pages(application, other_headers, "limit=2") == theirs
    assert await pages(application, headers, "limit=2&state=running") == []
    assert (await application.client.get("/api/v1/jobs?cursor=nonsense", headers=headers)).status_code == 400


async def test_an_administrator_sees_all_jobs_and_the_queue_and_others_do_not(application: Application) -> None:
    headers, asker = await me(application, "asker")
    admin, _ = await me(application, "admin")
    mine = await enqueued(application, asker, 3)
    for path in ("/api/v1/jobs?all=true", "/api/v1/jobs/queue"):
        assert (await application.client.get(path, headers=headers)).status_code == 403
    assert await pages(application, admin, "limit=2&all=true") == mine[::-1]
    assert await pages(application, admin, "limit=2") == []
    assert (await application.client.get(f"/api/v1/jobs/{mine[0]}", headers=admin)).json()["asked_by"] == str(
        asker.user_id
    )
    await application.client.post(f"/api/v1/jobs/{mine[0]}/cancel", headers=admin)
    [kind] = (await application.client.get("/api/v1/jobs/queue", headers=admin)).json()["kinds"]
    assert (kind["kind"], kind["queued"], kind["running"]) == ("step", 2, 0)
    assert kind["oldest_queued_s"] > 0


async def test_a_job_that_stops_when_asked_is_cancelled(application: Application) -> None:
    headers, asker = await me(application, "asker")

    async def run(services: Services, job: Step, context: JobContext) -> None:
        await application.client.post(f"/api/v1/jobs/{context.id}/cancel", headers=headers)
        assert await context.cancelled()
        raise Cancelled

    [job_id] = await enqueued(application, asker, 1)
    await run_queued_jobs(application.services, [HandlerSpec(Step, run)])
    answer = (await application.client.get(f"/api/v1/jobs/{job_id}", headers=headers)).json()
    assert (answer["state"], answer["problem"]) == ("cancelled", None)


@pytest.mark.parametrize(
    "failure", [Retry(), ConnectionResetError(), asyncpg.CrashShutdownError("the server went down")]
)
async def test_a_job_that_met_a_passing_failure_is_tried_again(application: Application, failure: Exception) -> None:
    headers, asker = await me(application, "asker")

    async def run(services: Services, job: Step, context: JobContext) -> None:
        if context.attempt == 1:
            raise failure
        async with services.db.write(SYSTEM) as tx:
            await context.finish(tx)

    [job_id] = await enqueued(application, asker, 1)
    await run_queued_jobs(application.services, [HandlerSpec(Step, run)])
    answer = (await application.client.get(f"/api/v1/jobs/{job_id}", headers=headers)).json()
    assert (answer["state"], answer["attempts"]) == ("succeeded", 2)
