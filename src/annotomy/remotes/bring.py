"""Bringing a study or series in from a remote: a job that asks what there is, fetches what is missing, and counts what came.

Everything comes through the one store operation. What was stored stays, however the attempt ends; the next one asks only for the
rest. The asker's rights and the project's rules are looked at again when it runs. A remote is never believed: an instance that
was not asked for is refused before its bytes are kept, and only what lies in the project counts as brought.
"""

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from uuid import UUID

import structlog

from annotomy.actor import SYSTEM
from annotomy.archive.store import Incoming, store_instances
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import NotFound, Problem
from annotomy.events import Event, emit
from annotomy.jobs.handlers import Cancelled, HandlerSpec, JobContext, Reject, Retry
from annotomy.jobs.queue import MAX_ATTEMPTS, Job, enqueue
from annotomy.projects.access import Permission, require
from annotomy.remotes.ask import holding_of, opened, series_shown
from annotomy.remotes.errors import RemoteFailed, RemoteHoldsNothing, RemoteIncomplete
from annotomy.remotes.registry import asked_or_seen, require_open
from annotomy.remotes.remote_archive import (
    InstanceName,
    Openers,
    RemoteArchive,
    SendsToListener,
    uid_of,
    value_of,
)
from annotomy.remotes.schemas import NewRetrieval, Retrieval
from annotomy.services import Services

log = structlog.get_logger(__name__)

MAX_INSTANCES = 100_000
"""Of one series; the largest whole-slide and dynamic ones have some ten thousand."""
AT_ONCE = 4
"""Retrievals over all workers: a PACS serves a hospital besides us."""
TELL_S = 2.0
"""Between two reports of progress, and two looks at whether it was cancelled."""
SERIES_INSTANCES, SOP_CLASS = "00201209", "00080016"


class RetrieveFromRemote(Job, frozen=True):
    kind: ClassVar[str] = "retrieve-from-remote"
    retrieval_id: UUID


async def ask_retrieval(tx: WriteTx, remote_id: UUID, new: NewRetrieval) -> Retrieval:
    """Raises NotFound or Forbidden to who may not bring studies from there into the project."""
    await _require(tx, remote_id, new.project_id)
    retrieval_id = new_id()
    job_id = await enqueue(tx, RetrieveFromRemote(retrieval_id), project_id=new.project_id)
    await tx.execute(
        "insert into remote_retrievals (id, remote_id, project_id, study_instance_uid, series_instance_uid, job_id, created_by)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        retrieval_id, remote_id, new.project_id, new.study_instance_uid, new.series_instance_uid, job_id, tx.actor.user_id,
    )  # fmt: skip
    event = Event(
        type="remote.retrieval_asked",
        object_kind="remote",
        object_id=str(remote_id),
        project_id=new.project_id,
        study_instance_uid=new.study_instance_uid,
        series_instance_uid=new.series_instance_uid,
        data={"retrieval_id": str(retrieval_id), "job_id": str(job_id)},
    )
    await emit(tx, event)
    return await _retrieval(tx, retrieval_id)


async def get_retrieval(tx: ReadTx, remote_id: UUID, retrieval_id: UUID) -> Retrieval:
    """To who may bring studies into its project. Raises NotFound."""
    row = await tx.fetchrow(
        f"select r.project_id from remote_retrievals r where r.id = $1 and r.remote_id = $2 and {asked_or_seen('r')}",
        retrieval_id,
        remote_id,
    )
    if row is None:
        raise NotFound("There is no such retrieval.")
    try:
        await require(tx, tx.actor, Permission.REMOTE_RETRIEVE, row["project_id"])
    except NotFound:
        raise NotFound("There is no such retrieval.") from None
    return await _retrieval(tx, retrieval_id)


async def _require(tx: ReadTx, remote_id: UUID, project_id: UUID) -> None:
    await require_open(tx, tx.actor, Permission.REMOTE_RETRIEVE, remote_id, project_id)
    await require(tx, tx.actor, Permission.STUDY_STORE, project_id)


async def _retrieval(tx: ReadTx, retrieval_id: UUID) -> Retrieval:
    row = await tx.fetchrow(
        "select r.id, r.remote_id, r.project_id, r.study_instance_uid, r.series_instance_uid, r.job_id, j.state, j.progress,"
        " r.expected, r.present, r.refused, j.problem, r.created_at"
        " from remote_retrievals r join jobs j on j.id = r.job_id where r.id = $1",
        retrieval_id,
    )
    assert row is not None, "the caller has seen it"
    return Retrieval(**dict(row))


# -- the job ----------------------------------------------------------------------------------------------------------


@dataclass
class _Bringing:
    """One attempt."""

    services: Services
    context: JobContext
    archive: RemoteArchive
    id: UUID
    project_id: UUID
    study_instance_uid: str
    expected: int = 0
    present: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    failure: RemoteFailed | None = None
    cancelled: bool = False
    told_at: float = 0.0

    async def tell(self, came: int) -> None:
        """Progress, now and then; remembers whether somebody wants it stopped. Raises Fenced."""
        if time.monotonic() - self.told_at < TELL_S:
            return
        self.told_at = time.monotonic()
        await self.context.report(min(1.0, (self.present + came) / max(1, self.expected)), "")
        self.cancelled = await self.context.cancelled()


def retrieval_handler(openers: Openers) -> HandlerSpec:
    async def run(services: Services, job: RetrieveFromRemote, context: JobContext) -> None:
        try:
            await _run(services, openers, job, context)
        except RemoteIncomplete as problem:
            raise Reject(problem) from problem
        except RemoteFailed as problem:
            if context.attempt < MAX_ATTEMPTS:
                log.warning("remote.retrieval_interrupted", retrieval_id=str(job.retrieval_id), slug=problem.slug)
                raise Retry(problem.slug) from problem
            raise Reject(problem) from problem
        except Problem as problem:
            raise Reject(problem) from problem

    return HandlerSpec(RetrieveFromRemote, run, limit=AT_ONCE)


async def _run(services: Services, openers: Openers, job: RetrieveFromRemote, context: JobContext) -> None:
    async with services.db.read(context.asker) as tx:
        row = await tx.fetchrow("select * from remote_retrievals where id = $1", job.retrieval_id)
        if row is None:
            raise NotFound("The remote is not known any more.")
        await _require(tx, row["remote_id"], row["project_id"])
    archive = await opened(services, openers, context.asker, row["remote_id"])
    bringing = _Bringing(services, context, archive, row["id"], row["project_id"], row["study_instance_uid"])
    by_series, claimed = await _named(bringing, row["series_instance_uid"])
    bringing.expected = max(claimed, sum(map(len, by_series.values())))
    await _count(bringing, by_series)
    before = bringing.present
    for names in by_series.values():
        missing = await _missing(bringing, names)
        if missing:
            await _bring(bringing, missing, whole_series=len(missing) == len(names))
        if bringing.failure is not None or bringing.cancelled:
            break
    await _count(bringing, by_series)
    if bringing.cancelled:
        raise Cancelled
    if bringing.failure is not None:
        raise bringing.failure
    if bringing.present < bringing.expected:
        if bringing.present > before and context.attempt < MAX_ATTEMPTS:
            raise Retry("the remote delivered a part")
        raise RemoteIncomplete(
            "The remote named more instances than it delivered, or some could not be kept.",
            expected=bringing.expected,
            present=bringing.present,
            refused=dict(bringing.refused),
        )
    async with services.db.write(context.asker) as tx:
        event = Event(
            type="remote.retrieved",
            study_id=await holding_of(tx, bringing.project_id, bringing.study_instance_uid),
            object_kind="remote",
            object_id=str(row["remote_id"]),
            project_id=bringing.project_id,
            study_instance_uid=bringing.study_instance_uid,
            series_instance_uid=row["series_instance_uid"],
            data={
                "retrieval_id": str(bringing.id),
                "instances": bringing.present,
                "fetched": bringing.present - before,
            },
        )
        await emit(tx, event)
        await context.finish(tx)


async def _named(bringing: _Bringing, series_instance_uid: str | None) -> tuple[dict[str, list[InstanceName]], int]:
    """What the remote names and rules show, by series; and how many instances it claims those series to have."""
    study = bringing.study_instance_uid
    shown = await series_shown(bringing.services, bringing.context.asker, bringing.archive, bringing.project_id, study)
    if series_instance_uid is not None:
        shown = [row for row in shown if uid_of(row, "series") == series_instance_uid]
    by_series: dict[str, list[InstanceName]] = {}
    claimed = 0
    for series in shown:
        uid = uid_of(series, "series") or ""
        match = {"StudyInstanceUID": study, "SeriesInstanceUID": uid}
        found = await bringing.archive.query("instance", match, limit=MAX_INSTANCES)
        by_series[uid] = [
            InstanceName(study, uid, uid_of(row, "instance") or "", str(value_of(row, SOP_CLASS) or ""))
            for row in found.rows
        ]
        told = value_of(series, SERIES_INSTANCES)
        claimed += max(len(by_series[uid]) + found.malformed, _whole(told))
    if not claimed:
        raise RemoteHoldsNothing("The remote holds nothing of this that you may see.")
    return by_series, claimed


def _whole(value: Any) -> int:
    try:
        return min(max(int(value), 0), MAX_INSTANCES)
    except (TypeError, ValueError):
        return 0


async def _missing(bringing: _Bringing, names: Sequence[InstanceName]) -> list[InstanceName]:
    """Those that the project does not hold. What lies elsewhere in the archive is fetched as well: nobody gains it by its UID."""
    async with bringing.services.db.read(SYSTEM) as tx:
        rows = await tx.fetch(
            "select i.sop_instance_uid from instances i join studies st on st.id = i.study_id"
            " where st.study_instance_uid = $1 and i.sop_instance_uid = any($2)"
            " and exists (select from project_studies ps where ps.project_id = $3 and ps.study_id = i.study_id"
            " and (ps.series_id is null or ps.series_id = i.series_id) and (ps.instance_id is null or ps.instance_id = i.id))",
            bringing.study_instance_uid, [one.sop_instance_uid for one in names], bringing.project_id,
        )  # fmt: skip
    present = {row["sop_instance_uid"] for row in rows}
    return [one for one in names if one.sop_instance_uid not in present]


async def _count(bringing: _Bringing, by_series: dict[str, list[InstanceName]]) -> None:
    named = [one for names in by_series.values() for one in names]
    bringing.present = len(named) - len(await _missing(bringing, named))
    async with bringing.services.db.write(SYSTEM) as tx:
        await tx.execute(
            "update remote_retrievals set expected = $2, present = $3, refused = $4 where id = $1",
            bringing.id, bringing.expected, bringing.present, dict(bringing.refused),
        )  # fmt: skip


async def _bring(bringing: _Bringing, missing: Sequence[InstanceName], *, whole_series: bool) -> None:
    """A failure of the remote is kept for later: what came before it is committed first."""
    if isinstance(bringing.archive, SendsToListener) and bringing.archive.moves:
        await _move(bringing, bringing.archive, missing, whole_series)
        return
    outcomes = await store_instances(
        bringing.services, bringing.context.asker, bringing.project_id, _files(bringing, missing, whole_series)
    )
    for outcome in outcomes:
        if outcome.problem is not None:
            bringing.refused[outcome.problem.slug] += 1


async def _files(bringing: _Bringing, missing: Sequence[InstanceName], whole_series: bool) -> AsyncIterator[Incoming]:
    asked_for = frozenset((one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid) for one in missing)
    came = 0
    try:
        async with aclosing(bringing.archive.retrieve(missing, whole_series)) as files:
            async for file in files:
                yield replace(file, among=asked_for)
                came += 1
                await bringing.tell(came)
                if bringing.cancelled:
                    return
    except RemoteFailed as failure:
        bringing.failure = failure


async def _move(
    bringing: _Bringing, archive: SendsToListener, missing: Sequence[InstanceName], whole_series: bool
) -> None:
    """Our listener stores what comes (moving.py); its C-STORE requests name this message."""
    message_id = secrets.randbelow(0xFFFF) + 1
    await _moving(bringing, message_id)
    try:
        await archive.move(missing, whole_series, message_id=message_id)
    except RemoteFailed as failure:
        bringing.failure = failure
    finally:
        await _moving(bringing, None)
    bringing.cancelled = await bringing.context.cancelled()


async def _moving(bringing: _Bringing, message_id: int | None) -> None:
    async with bringing.services.db.write(SYSTEM) as tx:
        await tx.execute("update remote_retrievals set move_message_id = $2 where id = $1", bringing.id, message_id)
