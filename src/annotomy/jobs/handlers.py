"""What runs a job, and what it may say of its end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import WriteTx
from annotomy.errors import Problem
from annotomy.jobs.queue import Job
from annotomy.services import Services


class Retry(Exception):
    """Something passing failed; the job is tried again later."""


class Reject(Exception):
    """The job cannot be done, now or later; the problem is shown to its asker."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.slug)
        self.problem = problem


class Cancelled(Exception):
    """The asker wanted the job stopped, and it has left nothing behind."""


class Fenced(Exception):
    """Another worker took this job over meanwhile: this attempt must leave no trace."""


@dataclass
class JobContext:
    """One attempt at a job. `attempt` is the fencing token: only the newest attempt may write its result."""

    services: Services
    id: UUID
    asker: Actor
    attempt: int

    async def report(self, share: float, message: str = "") -> None:
        """Progress from 0 to 1. Raises Fenced when the attempt is over."""
        async with self.services.db.write(SYSTEM) as tx:
            known = await tx.fetchval(
                "update jobs set progress = $3, message = $4 where id = $1 and attempt = $2 and state = 'running' returning 1",
                self.id, self.attempt, min(max(share, 0.0), 1.0), message,
            )  # fmt: skip
        if known is None:
            raise Fenced

    async def cancelled(self) -> bool:
        async with self.services.db.read(SYSTEM) as tx:
            return bool(await tx.fetchval("select cancel_requested from jobs where id = $1", self.id))

    async def finish(self, tx: WriteTx) -> None:
        """Books the success in the transaction that writes the result. Raises Fenced, which rolls the result back."""
        booked = await tx.fetchval(
            "update jobs set state = 'succeeded', progress = 1, message = '', finished_at = now()"
            " where id = $1 and attempt = $2 and state = 'running' returning 1",
            self.id, self.attempt,
        )  # fmt: skip
        if booked is None:
            raise Fenced

    async def fail(self, tx: WriteTx, problem: Problem) -> None:
        """Books a failure in a transaction that tells of it. Raises Fenced, which rolls it back."""
        booked = await tx.fetchval(
            "update jobs set state = 'failed', problem = $3, finished_at = now()"
            " where id = $1 and attempt = $2 and state = 'running' returning 1",
            self.id, self.attempt, problem.to_json(),
        )  # fmt: skip
        if booked is None:
            raise Fenced


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """`limit` counts running jobs of this kind over all workers; 0 is none."""

    job_type: type[Job]
    run: Callable[[Services, Any, JobContext], Awaitable[None]]
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Upkeep that one worker does at the times of a cron expression (UTC); doing it twice must do no harm."""

    name: str
    expression: str
    run: Callable[[Services], Awaitable[object]]
