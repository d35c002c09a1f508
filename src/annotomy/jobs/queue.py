"""Enqueue: a job is a row in the caller's transaction, so it exists if and only if what caused it does."""

from typing import ClassVar
from uuid import UUID

import msgspec
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from annotomy.db.engine import WriteTx
from annotomy.db.identifiers import new_id

MAX_ATTEMPTS = 5
"""A job that was begun this often without an end kills its worker each time: it is given up."""


class Job(msgspec.Struct, frozen=True):
    """What to do, by identifiers only. Subclasses set `kind`, an imperative in kebab case."""

    kind: ClassVar[str]


async def cancel_job(tx: WriteTx, job_id: UUID) -> None:
    """One that waits never begins; one that runs is told to stop; one that has ended stays as it is. Decides no rights."""
    await tx.execute(
        "update jobs set cancel_requested = true, state = case when state = 'queued' then 'cancelled' else state end,"
        " finished_at = case when state = 'queued' then now() else finished_at end"
        " where id = $1 and state in ('queued', 'running')",
        job_id,
    )


async def enqueue(tx: WriteTx, job: Job, *, project_id: UUID | None = None, priority: int = 0) -> UUID:
    """The job's id. It runs after the transaction commits, for the transaction's actor."""
    job_id = new_id()
    await tx.execute(
        "insert into jobs (id, kind, payload, asker_id, project_id, priority) values ($1, $2, $3, $4, $5, $6)",
        job_id, job.kind, msgspec.to_builtins(job), tx.actor.user_id, project_id, priority,
    )  # fmt: skip
    connection = tx.raw._con  # pyright: ignore[reportPrivateUsage] - the library wants the bare connection of this transaction
    await Queries(AsyncpgDriver(connection)).enqueue(job.kind, job_id.bytes, priority)  # pyright: ignore[reportArgumentType]
    return job_id
