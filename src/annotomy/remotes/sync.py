"""What a remote holds, kept as a list here: so that studies whose images never leave the PACS can be found and annotated.

A run asks for the studies of the last days, a span of dates at a time. Absence is judged with care: an answer that fails, is malformed
or cut off judges nothing; nor does one in which nothing is left, or more is missing than a share of what is known, unless an
administrator has looked and says so. What is missing in an answer that was believed gets a tombstone, and counts as gone only
when it stayed away for the grace. Rows are never deleted, and annotations hang on no row of this list.
"""

import re
from datetime import date, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import structlog

from annotomy.actor import SYSTEM
from annotomy.audit import Entry, record
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, NotFound, Problem
from annotomy.events import Event, emit
from annotomy.http.pages import Page, decode_cursor, encode_cursor
from annotomy.jobs.handlers import Cancelled, HandlerSpec, JobContext, Reject
from annotomy.jobs.queue import Job, enqueue
from annotomy.projects.access import Permission, require_global
from annotomy.remotes.ask import opened, with_holding
from annotomy.remotes.errors import RemoteUnreadable
from annotomy.remotes.registry import get_remote, require_open
from annotomy.remotes.remote_archive import Openers, RemoteArchive, uid_of, value_of
from annotomy.remotes.schemas import RemoteRow, Sync, SyncRun, SyncSettings
from annotomy.remotes.shown import policy_for, shown_studies
from annotomy.services import Services

log = structlog.get_logger(__name__)

SPAN_ROWS = 2000
"""Studies of one question; a span that has more is asked in halves, down to a day."""
DAY_ROWS = 20_000
"""Of one day: no hospital makes more."""
FEW = 1
"""Missing studies that are believed whatever their share: of five known ones, one may well have been deleted."""
AT_ONCE = 2
BATCH = 500
"""Rows of the list that rules are asked about at a time."""
STUDY_DATE = "00080020"
_DAY = re.compile(r"^\d{8}$")
_NO_SYNC = "This remote is not synchronised."


class SyncRemote(Job, frozen=True):
    kind: ClassVar[str] = "sync-remote"
    remote_id: UUID
    believe: bool = False


# -- settings and status ----------------------------------------------------------------------------------------------


async def set_sync(tx: WriteTx, remote_id: UUID, wanted: SyncSettings, now: datetime) -> Sync:
    """Begins, pauses, resumes or changes it; a run in hand stops at the next span when it is paused."""
    await get_remote(tx, remote_id)
    await tx.execute(
        "insert into remote_syncs (remote_id, state, every_minutes, days, missing_share, grace_days, next_run_at)"
        " values ($1, $2, $3, $4, $5, $6, $7) on conflict (remote_id) do update set state = excluded.state,"
        " every_minutes = excluded.every_minutes, days = excluded.days, missing_share = excluded.missing_share,"
        " grace_days = excluded.grace_days, next_run_at = least(remote_syncs.next_run_at, excluded.next_run_at)",
        remote_id, wanted.state, wanted.every_minutes, wanted.days, wanted.missing_share, wanted.grace_days, now,
    )  # fmt: skip
    if wanted.state == "paused":
        await tx.execute("update remote_syncs set job_id = null where remote_id = $1", remote_id)
    event = Event(
        type="remote.sync_changed",
        object_kind="remote",
        object_id=str(remote_id),
        data={"state": wanted.state, "every_minutes": wanted.every_minutes, "days": wanted.days},
    )
    await emit(tx, event)
    return await sync_of(tx, remote_id)


async def stop_sync(tx: WriteTx, remote_id: UUID) -> None:
    """No list any more; studies, annotations and what was brought in stay."""
    await get_remote(tx, remote_id)
    if await tx.fetchval("delete from remote_syncs where remote_id = $1 returning 1", remote_id) is None:
        raise NotFound(_NO_SYNC)
    await tx.execute("delete from remote_studies where remote_id = $1", remote_id)
    await emit(tx, Event(type="remote.sync_stopped", object_kind="remote", object_id=str(remote_id)))


async def sync_of(tx: ReadTx, remote_id: UUID) -> Sync:
    await get_remote(tx, remote_id)
    row = await tx.fetchrow(
        "select s.*, j.state in ('queued', 'running') as running,"
        " (select count(*) from remote_studies where remote_id = $1 and missing_since is null) as present,"
        " (select count(*) from remote_studies where remote_id = $1 and missing_since is not null and gone_at is null) as missing,"
        " (select count(*) from remote_studies where remote_id = $1 and gone_at is not null) as gone"
        " from remote_syncs s left join jobs j on j.id = s.job_id where s.remote_id = $1",
        remote_id,
    )
    if row is None:
        raise NotFound(_NO_SYNC)
    fields: dict[str, Any] = {name: row[name] for name in Sync.__struct_fields__}
    fields["running"] = bool(row["running"])
    return Sync(**fields)


async def run_sync(tx: WriteTx, remote_id: UUID, wanted: SyncRun) -> Sync:
    """Now, paused or not."""
    await require_global(tx, tx.actor, Permission.SYSTEM_MANAGE)
    await sync_of(tx, remote_id)
    await _begin(tx, remote_id, believe=wanted.believe)
    if wanted.believe:
        await emit(tx, Event(type="remote.sync_believed", object_kind="remote", object_id=str(remote_id)))
    return await sync_of(tx, remote_id)


async def sync_due(services: Services) -> int:
    """Begins the runs whose time has come; returns how many."""
    now = services.clock.now()
    async with services.db.write(SYSTEM) as tx:
        rows = await tx.fetch(
            "select s.remote_id from remote_syncs s where s.state = 'on' and s.next_run_at <= $1"
            " and not exists (select from jobs j where j.id = s.job_id and j.state in ('queued', 'running'))"
            " for update of s skip locked",
            now,
        )
        for row in rows:
            await _begin(tx, row["remote_id"], believe=False)
            await tx.execute(
                "update remote_syncs set next_run_at = $2::timestamptz + every_minutes * interval '1 minute' where remote_id = $1",
                row["remote_id"], now,
            )  # fmt: skip
    return len(rows)


async def _begin(tx: WriteTx, remote_id: UUID, *, believe: bool) -> None:
    job_id = await enqueue(tx, SyncRemote(remote_id, believe))
    await tx.execute("update remote_syncs set job_id = $2 where remote_id = $1", remote_id, job_id)


# -- a run ------------------------------------------------------------------------------------------------------------


def sync_handler(openers: Openers) -> HandlerSpec:
    async def run(services: Services, job: SyncRemote, context: JobContext) -> None:
        async with services.db.read(SYSTEM) as tx:
            sync = await tx.fetchrow("select * from remote_syncs where remote_id = $1", job.remote_id)
        if sync is None:
            raise Cancelled
        today = services.clock.now().date()
        first, last = today - timedelta(days=sync["days"]), today + timedelta(days=1)
        try:
            archive = await opened(services, openers, SYSTEM, job.remote_id)
            rows = await _walk(services, archive, job.remote_id, first, last, context)
        except Problem as problem:
            async with services.db.write(SYSTEM) as tx:
                await _told(tx, job.remote_id, services.clock.now(), "failed", f"{problem.slug}: {problem.detail}")
                await context.fail(tx, problem)
            raise Reject(problem) from problem
        async with services.db.write(SYSTEM) as tx:
            await _judge(tx, sync, rows, first, last, services.clock.now(), believe=job.believe)
            await context.finish(tx)

    return HandlerSpec(SyncRemote, run, limit=AT_ONCE)


async def _walk(
    services: Services, archive: RemoteArchive, remote_id: UUID, first: date, last: date, context: JobContext
) -> dict[str, tuple[date, dict[str, Any]]]:
    """Every study of these days, by its UID. Raises RemoteFailed for an answer that is not whole, Cancelled when it was paused."""
    found: dict[str, tuple[date, dict[str, Any]]] = {}
    spans, total = [(first, last)], (last - first).days + 1
    left = total
    while spans:
        begin, end = spans.pop()
        one_day = begin == end
        answer = await archive.query(
            "study", {"StudyDate": f"{begin:%Y%m%d}-{end:%Y%m%d}"}, limit=DAY_ROWS if one_day else SPAN_ROWS
        )
        if answer.malformed:
            raise RemoteUnreadable("The remote's list holds studies without a UID.", malformed=answer.malformed)
        if not answer.complete:
            if one_day:
                raise RemoteUnreadable("The remote does not tell all studies of a day.")
            middle = begin + (end - begin) // 2
            spans += [(middle + timedelta(days=1), end), (begin, middle)]
            continue
        for row in answer.rows:
            day = _day(row)
            if day is not None and begin <= day <= end:  # what was not asked for is not the answer
                found[uid_of(row, "study") or ""] = (day, row)
        left -= (end - begin).days + 1
        await context.report(1 - left / total, f"{len(found)} studies")
        await _require_wanted(services, remote_id, context)
    return found


async def _require_wanted(services: Services, remote_id: UUID, context: JobContext) -> None:
    """Paused meanwhile, the run ends and judges nothing; one that was begun while it is paused was asked for."""
    async with services.db.read(SYSTEM) as tx:
        wanted = await tx.fetchval(
            "select 1 from remote_syncs where remote_id = $1 and job_id = $2", remote_id, context.id
        )
    if wanted is None or await context.cancelled():
        raise Cancelled


def _day(row: dict[str, Any]) -> date | None:
    text = value_of(row, STUDY_DATE)
    if not isinstance(text, str) or not _DAY.match(text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def suspicion(known: int, missing: int, seen: int, share: float) -> str:
    """Why the absence of so many studies is not believed; empty when it is."""
    if not missing:
        return ""
    if not seen:
        return f"The answer is empty, and {known} studies are known: nothing was marked as missing."
    if missing > max(FEW, int(share * known)):
        return f"{missing} of {known} known studies are missing, more than a share of {share:g}: nothing was marked as missing."
    return ""


async def _judge(
    tx: WriteTx,
    sync: Any,
    rows: dict[str, tuple[date, dict[str, Any]]],
    first: date,
    last: date,
    now: datetime,
    *,
    believe: bool,
) -> None:
    remote_id = sync["remote_id"]
    await tx.execute("select from remote_syncs where remote_id = $1 for update", remote_id)
    known = await tx.fetch(
        "select study_instance_uid from remote_studies where remote_id = $1 and study_date between $2 and $3 and gone_at is null",
        remote_id, first, last,
    )  # fmt: skip
    missing = sorted({row["study_instance_uid"] for row in known} - rows.keys())
    await tx.executemany(
        "insert into remote_studies (remote_id, study_instance_uid, study_date, attributes, first_seen_at, last_seen_at)"
        " values ($1, $2, $3, $4, $5, $5) on conflict (remote_id, study_instance_uid) do update set study_date = excluded.study_date,"
        " attributes = excluded.attributes, last_seen_at = excluded.last_seen_at, missing_since = null, gone_at = null",
        [(remote_id, uid, day, row, now) for uid, (day, row) in sorted(rows.items())],
    )
    doubt = "" if believe else suspicion(len(known), len(missing), len(rows), sync["missing_share"])
    if not doubt:
        await tx.execute(
            "update remote_studies set missing_since = coalesce(missing_since, $3),"
            " gone_at = case when coalesce(missing_since, $3) <= $4 then $3 end"
            " where remote_id = $1 and study_instance_uid = any($2)",
            remote_id, missing, now, now - timedelta(days=sync["grace_days"]),
        )  # fmt: skip
    await _told(tx, remote_id, now, "guarded" if doubt else "complete", doubt)


async def _told(tx: WriteTx, remote_id: UUID, now: datetime, outcome: str, why: str) -> None:
    await tx.execute(
        "update remote_syncs set outcome = $2, why = $3, last_run_at = $4,"
        " last_complete_at = case when $2 = 'complete' then $4 else last_complete_at end where remote_id = $1",
        remote_id, outcome, why, now,
    )  # fmt: skip
    result = "success" if outcome == "complete" else "failure"
    await emit(
        tx,
        Event(
            type="remote.synced",
            object_kind="remote",
            object_id=str(remote_id),
            outcome=result,
            data={"outcome": outcome},
        ),
    )
    log.info("remote.synced", remote_id=str(remote_id), outcome=outcome)


# -- the list ---------------------------------------------------------------------------------------------------------

_FILTERS = {
    "StudyInstanceUID": "study_instance_uid = ${}",
    "PatientID": "attributes #>> '{{00100020,Value,0}}' = ${}",
    "AccessionNumber": "attributes #>> '{{00080050,Value,0}}' = ${}",
}


async def known_studies(
    tx: WriteTx, remote_id: UUID, project_id: UUID, match: dict[str, str], *, limit: int, cursor: str | None
) -> Page[RemoteRow]:
    """Newest first, without asking the remote; a project's rules filter it like any answer."""
    await require_open(tx, tx.actor, Permission.REMOTE_QUERY, remote_id, project_id)
    policy = await policy_for(tx, project_id)
    values: list[Any] = [remote_id]
    conditions = ["remote_id = $1"]
    for keyword, value in match.items():
        values.append(value)
        conditions.append(_FILTERS[keyword].format(len(values)))
    position: tuple[str, str] | None = None
    if cursor:
        day, uid = decode_cursor(cursor, (str, str))
        if _DAY.match(str(day)) is None:
            raise BadRequest("This cursor does not belong to this list.")
        position = str(day), str(uid)
    items: list[tuple[dict[str, Any], str]] = []
    while len(items) <= limit:
        at = list(values)
        where = list(conditions)
        if position is not None:
            at += [position[0], position[1]]
            where.append(f"(study_date, study_instance_uid) < (to_date(${len(at) - 1}, 'YYYYMMDD'), ${len(at)})")
        rows = await tx.fetch(
            "select study_instance_uid, study_date, attributes, missing_since, gone_at from remote_studies"
            f" where {' and '.join(where)} order by study_date desc, study_instance_uid desc limit {BATCH}",
            *at,
        )
        if not rows:
            break
        states = {
            row["study_instance_uid"]: "gone" if row["gone_at"] else "missing" if row["missing_since"] else "present"
            for row in rows
        }
        shown = await shown_studies(tx, policy, [row["attributes"] for row in rows])
        items += [(row, states[uid_of(row, "study") or ""]) for row in shown]
        position = f"{rows[-1]['study_date']:%Y%m%d}", rows[-1]["study_instance_uid"]
    page = items[:limit]
    entry = Entry(
        action="remote.queried",
        object_kind="remote",
        object_id=str(remote_id),
        project_id=project_id,
        detail={"keys": sorted(match), "rows": len(page), "synchronised": True},
    )
    await record(tx, entry)
    last = page[-1][0] if page else None
    more = last is not None and len(items) > limit
    return Page(
        items=await with_holding(tx, page),
        next=encode_cursor(f"{_day(last):%Y%m%d}", uid_of(last, "study")) if more and last is not None else None,
        total=None,
    )
