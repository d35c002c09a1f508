"""Sending what a project holds to a remote: a durable queue, an outcome for each instance, a dead letter with its reason.

The queue is `remote_pushes`: a push waits in it, whatever happens to processes, until each instance was taken, refused, or the
attempts are used up. An attempt is a job; sending again what was taken already does no harm. A proposal that nobody accepted is
never sent, be it that it became one again after it was asked for.
"""

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal
from uuid import UUID

import structlog
from pydicom.uid import generate_uid

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.downloads import admit_download
from annotomy.archive.retrieve import InstanceLocation, locate
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import Conflict, NotFound, Problem
from annotomy.events import Event, emit
from annotomy.http.pages import Page, decode_cursor, encode_cursor
from annotomy.jobs.handlers import Cancelled, HandlerSpec, JobContext, Reject
from annotomy.jobs.queue import Job, enqueue
from annotomy.projects.access import Permission, require, visible_instances
from annotomy.remotes.ask import holding_of, opened
from annotomy.remotes.commitment import apply_result
from annotomy.remotes.errors import NothingToPush, RemoteFailed, RemoteUnreadable
from annotomy.remotes.registry import asked_or_seen, require_open
from annotomy.remotes.remote_archive import Openers, PromisesStorage, RemoteArchive, Sent
from annotomy.remotes.schemas import NewPush, Push, PushedInstance
from annotomy.services import Services

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 14
"""With the pauses below about eight hours: a PACS that is serviced over night is back by then."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30, 3600
BOOK_AFTER = 50
"""Outcomes that share a transaction: what is sent again after a crash."""
AT_ONCE = 4
"""Pushes over all workers."""
DUE_AT_ONCE = 200

SENDABLE = (
    "not exists (select from segmentation_versions v join segmentations s on s.id = v.segmentation_id"
    " where v.sop_instance_uid = i.sop_instance_uid"
    " and (v.state in ('proposal', 'rejected') or s.state = 'rejected' or s.deleted_at is not null))"
)
"""An instance `i` that shows no mask which is a mere proposal, was rejected, or was deleted."""


class PushToRemote(Job, frozen=True):
    kind: ClassVar[str] = "push-to-remote"
    push_id: UUID


async def ask_push(services: Services, actor: Actor, remote_id: UUID, new: NewPush) -> Push:
    """Raises NotFound or Forbidden to who may not send there, NothingToPush, and ReasonRequired for what is a bulk download."""
    async with services.db.read(actor) as tx:
        await require_open(tx, actor, Permission.REMOTE_PUSH, remote_id, new.project_id)
    await admit_download(services, actor, [new.study_instance_uid])
    async with services.db.write(actor) as tx:
        await require_open(tx, actor, Permission.REMOTE_PUSH, remote_id, new.project_id)
        rows = await _sendable(tx, new)
        if not rows:
            raise NothingToPush("The project holds nothing of this that you may send.")
        push_id = new_id()
        job_id = await enqueue(tx, PushToRemote(push_id), project_id=new.project_id)
        await tx.execute(
            "insert into remote_pushes (id, remote_id, project_id, study_instance_uid, job_id, created_by)"
            " values ($1, $2, $3, $4, $5, $6)",
            push_id, remote_id, new.project_id, new.study_instance_uid, job_id, actor.user_id,
        )  # fmt: skip
        await tx.execute(
            "insert into remote_push_instances (push_id, sop_instance_uid, sop_class_uid)"
            " select $1, * from unnest($2::text[], $3::text[]) on conflict do nothing",
            push_id, [row["sop_instance_uid"] for row in rows], [row["sop_class_uid"] for row in rows],
        )  # fmt: skip
        await _emit(tx, "remote.push_asked", remote_id, new.project_id, new.study_instance_uid, push_id, len(rows))
        return await _push(tx, push_id)


async def _sendable(tx: ReadTx, new: NewPush) -> list[Any]:
    return await tx.fetch(
        "select i.sop_instance_uid, i.sop_class_uid from instances i join series se on se.id = i.series_id"
        " join studies st on st.id = i.study_id"
        f" where st.study_instance_uid = $2 and {visible_instances('i', project='$1')} and {SENDABLE}"
        " and ($3::text is null or se.series_instance_uid = $3) and ($4::text[] is null or i.sop_instance_uid = any($4))"
        " order by i.id",
        new.project_id, new.study_instance_uid, new.series_instance_uid, new.sop_instance_uids,
    )  # fmt: skip


async def get_push(tx: ReadTx, remote_id: UUID, push_id: UUID) -> Push:
    await _require_push(tx, remote_id, push_id)
    return await _push(tx, push_id)


async def list_pushes(tx: ReadTx, remote_id: UUID, project_id: UUID, *, limit: int, cursor: str | None) -> Page[Push]:
    """Newest first."""
    await require_open(tx, tx.actor, Permission.REMOTE_PUSH, remote_id, project_id)
    before = UUID(str(decode_cursor(cursor, (UUID,))[0])) if cursor else None
    rows = await tx.fetch(
        f"{_SELECT} where p.remote_id = $1 and p.project_id = $2 and {asked_or_seen('p')} and ($3::uuid is null or p.id < $3)"
        " order by p.id desc limit $4",
        remote_id, project_id, before, limit + 1,
    )  # fmt: skip
    items = [_answer(row, None) for row in rows[:limit]]
    return Page(items=items, next=encode_cursor(items[-1].id) if len(rows) > limit else None, total=None)


async def retry_push(tx: WriteTx, remote_id: UUID, push_id: UUID) -> Push:
    """A dead one begins anew, with what was not taken. Raises Conflict for one that is not dead."""
    project_id = await _require_push(tx, remote_id, push_id)
    job_id = await enqueue(tx, PushToRemote(push_id), project_id=project_id)
    woken = await tx.fetchval(
        "update remote_pushes set state = 'queued', attempts = 0, next_attempt_at = now(), problem = null, finished_at = null,"
        " job_id = $2 where id = $1 and state = 'dead' returning 1",
        push_id, job_id,
    )  # fmt: skip
    if woken is None:
        raise Conflict("Only a push that was given up can be tried anew.")
    await tx.execute(
        "update remote_push_instances set state = 'pending', reason = '' where push_id = $1 and state = 'refused'",
        push_id,
    )
    return await _push(tx, push_id)


async def cancel_push(tx: WriteTx, remote_id: UUID, push_id: UUID) -> Push:
    """What was sent stays there. Raises Conflict for one that is over."""
    await _require_push(tx, remote_id, push_id)
    done = await tx.fetchval(
        "update remote_pushes set state = 'cancelled', finished_at = now() where id = $1 and state = 'queued' returning 1",
        push_id,
    )
    if done is None:
        raise Conflict("The push is over.")
    return await _push(tx, push_id)


async def _require_push(tx: ReadTx, remote_id: UUID, push_id: UUID) -> UUID:
    """Its project, for who may send from there. Raises NotFound, else Forbidden."""
    row = await tx.fetchrow(
        f"select p.project_id from remote_pushes p where p.id = $1 and p.remote_id = $2 and {asked_or_seen('p')}",
        push_id,
        remote_id,
    )
    if row is None:
        raise NotFound("There is no such push.")
    try:
        await require(tx, tx.actor, Permission.REMOTE_PUSH, row["project_id"])
    except NotFound:
        raise NotFound("There is no such push.") from None
    return row["project_id"]


_SELECT = (
    "select p.id, p.remote_id, p.project_id, p.study_instance_uid, p.state, p.attempts, p.next_attempt_at, p.problem,"
    " p.created_at, p.finished_at, (select jsonb_object_agg(c.state, c.n) from (select state, count(*) as n"
    " from remote_push_instances where push_id = p.id group by state) c) as counts from remote_pushes p"
)


async def _push(tx: ReadTx, push_id: UUID) -> Push:
    row = await tx.fetchrow(f"{_SELECT} where p.id = $1", push_id)
    assert row is not None, "the caller has seen it"
    instances = await tx.fetch(
        "select sop_instance_uid, state, reason from remote_push_instances where push_id = $1 order by sop_instance_uid",
        push_id,
    )
    return _answer(row, [PushedInstance(**dict(one)) for one in instances])


def _answer(row: Any, instances: list[PushedInstance] | None) -> Push:
    fields: dict[str, Any] = {**row, "counts": row["counts"] or {}, "instances": instances}
    if row["state"] != "queued":
        fields["next_attempt_at"] = None
    return Push(**fields)


# -- attempts ---------------------------------------------------------------------------------------------------------


async def push_due(services: Services) -> int:
    """Begins the attempts whose time has come; returns how many. Each runs for who asked, with today's rights."""
    begun = 0
    async with services.db.write(SYSTEM) as tx:
        rows = await tx.fetch(
            "select p.id, p.project_id, p.created_by, u.username from remote_pushes p join users u on u.id = p.created_by"
            " where p.state = 'queued' and p.next_attempt_at <= $1"
            " and not exists (select from jobs j where j.id = p.job_id and j.state in ('queued', 'running'))"
            " order by p.next_attempt_at limit $2 for update of p skip locked",
            services.clock.now(), DUE_AT_ONCE,
        )  # fmt: skip
        for row in rows:
            tx.actor = Actor(user_id=row["created_by"], name=row["username"])
            job_id = await enqueue(tx, PushToRemote(row["id"]), project_id=row["project_id"])
            await tx.execute("update remote_pushes set job_id = $2 where id = $1", row["id"], job_id)
            begun += 1
    return begun


def push_handler(openers: Openers) -> HandlerSpec:
    async def run(services: Services, job: PushToRemote, context: JobContext) -> None:
        await _attempt(services, openers, job.push_id, context)

    return HandlerSpec(PushToRemote, run, limit=AT_ONCE)


async def _attempt(services: Services, openers: Openers, push_id: UUID, context: JobContext) -> None:
    asker = context.asker
    async with services.db.read(asker) as tx:
        push = await tx.fetchrow("select * from remote_pushes where id = $1", push_id)
    if push is None or push["state"] != "queued":
        raise Cancelled
    archive: RemoteArchive | None = None
    try:
        async with services.db.read(asker) as tx:
            await require_open(tx, asker, Permission.REMOTE_PUSH, push["remote_id"], push["project_id"])
        archive = await opened(services, openers, asker, push["remote_id"])
        await _drop_unsendable(services, push_id)
        locations = await _pending(services, asker, push)
        if locations:
            await _send(services, archive, push_id, locations)
        problem: Problem | None = None
    except RemoteFailed as failure:
        problem = failure
    except Problem as refusal:  # the right, the project or the address is gone: trying again changes nothing
        async with services.db.write(SYSTEM) as tx:
            await _give_up(tx, push, refusal)
            await context.fail(tx, refusal)
        raise Reject(refusal) from refusal
    await _book(services, push, context, problem)
    if problem is None and archive is not None:
        await _ask_commitment(services, archive, push_id)


async def _drop_unsendable(services: Services, push_id: UUID) -> None:
    async with services.db.write(SYSTEM) as tx:
        await tx.execute(
            "update remote_push_instances p set state = 'refused', reason = 'not to be sent any more: proposal, rejected or deleted'"
            f" from instances i where p.push_id = $1 and p.state = 'pending' and i.sop_instance_uid = p.sop_instance_uid"
            f" and not ({SENDABLE})",
            push_id,
        )


async def _pending(services: Services, asker: Actor, push: Any) -> list[InstanceLocation]:
    """What is to be sent and the asker still sees in the project; what they do not see any more is refused."""
    there = replace(asker, project_ids=frozenset({push["project_id"]}))  # another project may keep other bytes of a UID
    async with services.db.read(there) as tx:
        rows = await tx.fetch(
            "select sop_instance_uid from remote_push_instances where push_id = $1 and state = 'pending'", push["id"]
        )
        uids = [row["sop_instance_uid"] for row in rows]
        try:
            found = await locate(tx, sop_instance_uid=uids) if uids else []
        except NotFound:
            found = []
    gone = set(uids) - {at.sop_instance_uid for at in found}
    if gone:
        async with services.db.write(SYSTEM) as tx:
            await tx.execute(
                "update remote_push_instances set state = 'refused', reason = 'not here any more for who asked'"
                " where push_id = $1 and sop_instance_uid = any($2)",
                push["id"], sorted(gone),
            )  # fmt: skip
    return found


async def _send(
    services: Services, archive: RemoteArchive, push_id: UUID, locations: Sequence[InstanceLocation]
) -> None:
    """Raises RemoteFailed, after what was told before is booked."""
    told: list[Sent] = []
    try:
        async with aclosing(archive.store(locations)) as outcomes:
            async for sent in outcomes:
                told.append(sent)
                if len(told) >= BOOK_AFTER:
                    await _book_outcomes(services, push_id, told)
                    told = []
    finally:
        if told:
            await _book_outcomes(services, push_id, told)


async def _book_outcomes(services: Services, push_id: UUID, told: Sequence[Sent]) -> None:
    """What was refused for a passing reason stays pending, with the reason. Raises Cancelled when the push was."""
    async with services.db.write(SYSTEM) as tx:
        for sent in told:
            state = "sent" if not sent.problem else "pending" if sent.passing else "refused"
            await tx.execute(
                "update remote_push_instances set state = $3, reason = $4"
                " where push_id = $1 and sop_instance_uid = $2 and state = 'pending'",
                push_id, sent.sop_instance_uid, state, sent.problem,
            )  # fmt: skip
        state = await tx.fetchval("select state from remote_pushes where id = $1", push_id)
    if state != "queued":
        raise Cancelled


async def _book(services: Services, push: Any, context: JobContext, problem: Problem | None) -> None:
    """The end of an attempt: over, given up, or to be tried again."""
    async with services.db.write(SYSTEM) as tx:
        rows = await tx.fetch(
            "select state, count(*) as n from remote_push_instances where push_id = $1 group by state", push["id"]
        )
        counts = {row["state"]: row["n"] for row in rows}
        attempts = push["attempts"] + 1
        if counts.get("pending"):
            problem = problem or RemoteUnreadable(
                "The remote did not say that it took everything.", pending=counts["pending"]
            )
            if attempts >= MAX_ATTEMPTS:
                await _give_up(tx, push, problem)
            else:
                await tx.execute(
                    "update remote_pushes set attempts = $2, next_attempt_at = $3, problem = $4 where id = $1 and state = 'queued'",
                    push["id"], attempts, next_attempt(services.clock.now(), attempts), problem.to_json(),
                )  # fmt: skip
                log.warning("remote.push_waits", push_id=str(push["id"]), attempts=attempts, slug=problem.slug)
        elif counts.get("refused"):
            refused = NothingToPush(
                "The remote, or a rule of ours, refused some of it for good.", refused=counts["refused"]
            )
            await _give_up(tx, push, refused)
        else:
            await _over(tx, push, "sent", None)
            await _emit(
                tx, "remote.pushed", push["remote_id"], push["project_id"], push["study_instance_uid"], push["id"],
                counts.get("sent", 0),
            )  # fmt: skip
        await context.finish(tx)


def next_attempt(now: datetime, attempts: int) -> datetime:
    """Each pause is twice the one before, up to an hour."""
    return now + timedelta(seconds=min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempts - 1)))


async def _give_up(tx: WriteTx, push: Any, problem: Problem) -> None:
    await _over(tx, push, "dead", problem)
    await _emit(
        tx, "remote.push_failed", push["remote_id"], push["project_id"], push["study_instance_uid"], push["id"], None
    )


async def _over(tx: WriteTx, push: Any, state: Literal["sent", "dead"], problem: Problem | None) -> None:
    await tx.execute(
        "update remote_pushes set state = $2, attempts = attempts + 1, problem = $3, finished_at = now()"
        " where id = $1 and state = 'queued'",
        push["id"], state, None if problem is None else problem.to_json(),
    )  # fmt: skip


async def _ask_commitment(services: Services, archive: RemoteArchive, push_id: UUID) -> None:
    """Where the remote is one that is asked: a failure to ask leaves the push as sent, without a promise."""
    if not (isinstance(archive, PromisesStorage) and archive.promises):
        return
    transaction_uid = str(generate_uid())
    async with services.db.write(SYSTEM) as tx:
        sent = await tx.fetchval(
            "update remote_pushes set transaction_uid = $2 where id = $1 and state = 'sent' returning 1",
            push_id,
            transaction_uid,
        )
        rows = await tx.fetch(
            "select sop_class_uid, sop_instance_uid from remote_push_instances where push_id = $1 and state = 'sent'",
            push_id,
        )
    if sent is None or not rows:
        return
    try:
        result = await archive.ask_commitment(
            transaction_uid, [(row["sop_class_uid"], row["sop_instance_uid"]) for row in rows]
        )
    except RemoteFailed as failure:
        log.warning("remote.commitment_not_asked", push_id=str(push_id), slug=failure.slug)
        return
    if result is not None:
        async with services.db.write(SYSTEM) as tx:
            await apply_result(tx, transaction_uid, result)


async def _emit(
    tx: WriteTx, kind: str, remote_id: UUID, project_id: UUID, study_instance_uid: str, push_id: UUID, count: int | None
) -> None:
    event = Event(
        type=kind,
        object_kind="remote",
        object_id=str(remote_id),
        project_id=project_id,
        study_instance_uid=study_instance_uid,
        study_id=await holding_of(tx, project_id, study_instance_uid),
        outcome="failure" if kind.endswith("failed") else "success",
        data={"push_id": str(push_id)} | ({} if count is None else {"instances": count}),
    )
    await emit(tx, event)
