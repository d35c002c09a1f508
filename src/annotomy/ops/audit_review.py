"""The review of the audit that the Korean safeguards of personal data ask for each month: a report, and a person who signs it.

PIPA's standard of measures (article 8) wants access records looked through at least once a month, and the reason of
downloads checked. What is counted here is told by docs/explanation/audit.md.
"""

import hashlib
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, Conflict, NotFound
from annotomy.events import Event, emit
from annotomy.settings import AuditSettings

READS = ("study.read", "study.viewed")
DOWNLOADS = ("study.retrieved",)
"""Whole files: over HTTP, and to another DICOM system."""
RIGHTS = (
    "access_request", "api_key", "dimse_peer", "group", "member", "project_group", "role", "rule", "second_factor",
    "share_link", "user", "password", "signing_key", "audience",
)  # fmt: skip
"""Events about accounts, keys, rules and roles; by what stands before the dot."""
REFUSED_SIGN_INS = ("security.sign_in_refused", "security.second_factor_refused")
MAX_ROWS = 500
"""Lines of each list of a report: a person reads it. What is more is told in `cut` and found by the search."""


class Person(msgspec.Struct, frozen=True):
    actor_id: UUID
    actor: str
    reads: int
    """Series and studies looked at; repeated looks within a minute are one."""
    downloads: int
    exports: int
    patients: int
    """Different patients whose data was read, downloaded or exported."""
    studies: int
    refused: int


class PatientAccess(msgspec.Struct, frozen=True):
    actor_id: UUID
    actor: str
    patient: str
    reads: int
    downloads: int
    last_at: datetime


class OffHours(msgspec.Struct, frozen=True):
    """Reads and downloads at night, on Saturdays and on Sundays."""

    actor_id: UUID
    actor: str
    day: date
    records: int
    patients: int
    first_at: datetime
    last_at: datetime


class Bulk(msgspec.Struct, frozen=True):
    """A day on which one person read or downloaded more studies than `bulk_studies`."""

    actor_id: UUID
    actor: str
    day: date
    studies: int
    patients: int
    downloads: int


class FailedSignIns(msgspec.Struct, frozen=True):
    user_id: str
    """`unknown` where there is no such account."""
    source: str
    attempts: int
    first_at: datetime
    last_at: datetime


class Change(msgspec.Struct, frozen=True):
    seq: int
    at: datetime
    actor: str
    action: str
    object: dict[str, str]
    project_id: UUID | None
    detail: dict[str, Any]


class Export(msgspec.Struct, frozen=True):
    """A download or an export for which a reason was given, and every export."""

    seq: int
    at: datetime
    actor: str
    action: str
    object: dict[str, str]
    study_instance_uid: str
    project_id: UUID | None
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    since: datetime
    until: datetime
    time_zone: str
    office_hours: tuple[int, int]
    bulk_studies: int
    records: int
    people: list[Person]
    patients: list[PatientAccess]
    off_hours: list[OffHours]
    bulk: list[Bulk]
    failed_sign_ins: list[FailedSignIns]
    rights_changes: list[Change]
    exports: list[Export]
    cut: list[str]
    """Lists that hold more than their first 500 lines."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    month: str
    """2026-10, in the time zone of the report."""
    made_at: datetime
    sha256: str
    """Of the report's JSON; it stands in the audit record of its making."""
    signed_by: str | None
    signed_at: datetime | None
    note: str
    report: Report | None = None


# -- the report -------------------------------------------------------------------------------------------------------

_LOOKS = "action = any($4) or action = any($5)"
_LOCAL = "(at at time zone $6)"


async def report(
    tx: ReadTx, settings: AuditSettings, since: datetime, until: datetime, projects: list[UUID] | None = None
) -> Report:
    """Of the records of that time; of some projects alone where the asker audits only these."""
    if since.tzinfo is None or until.tzinfo is None or not since < until:
        raise BadRequest("A report is about the time from `since` to `until`, both with their offset from UTC.")
    within = "at >= $1 and at < $2 and ($3::uuid[] is null or project_id = any($3))"
    looks = (since, until, projects, list(READS), list(DOWNLOADS))
    first, last = settings.office_hours
    bulk = settings.bulk_studies or (1 << 31)
    counts = (
        "count(*) filter (where action = any($4)) as reads, count(*) filter (where action = any($5)) as downloads,"
        " count(distinct patient) filter (where patient <> '') as patients"
    )
    studies = "count(distinct study_instance_uid) filter (where study_instance_uid <> '')"
    found = {
        "people": await tx.fetch(
            f"select actor_id, max(actor_name) as actor, {counts}, count(*) filter (where action like '%.exported') as exports,"
            f" {studies} as studies, count(*) filter (where outcome <> 'success') as refused"
            f" from audit where {within} and ({_LOOKS} or action like '%.exported' or outcome <> 'success')"
            f" group by actor_id order by count(*) desc, actor_id limit {MAX_ROWS + 1}",
            *looks,
        ),
        "patients": await tx.fetch(
            f"select actor_id, max(actor_name) as actor, patient, {counts.rsplit(',', 1)[0]}, max(at) as last_at"
            f" from audit where {within} and patient <> '' and outcome = 'success' and ({_LOOKS})"
            f" group by actor_id, patient order by count(*) desc, actor_id, patient limit {MAX_ROWS + 1}",
            *looks,
        ),
        "off_hours": await tx.fetch(
            f"select actor_id, max(actor_name) as actor, {_LOCAL}::date as day, count(*) as records,"
            " count(distinct patient) filter (where patient <> '') as patients, min(at) as first_at, max(at) as last_at"
            f" from audit where {within} and outcome = 'success' and ({_LOOKS}) and (extract(isodow from {_LOCAL}) > 5"
            f" or extract(hour from {_LOCAL}) < $7 or extract(hour from {_LOCAL}) >= $8)"
            f" group by actor_id, day order by day, count(*) desc, actor_id limit {MAX_ROWS + 1}",
            *looks, settings.time_zone, first, last,
        ),
        "bulk": await tx.fetch(
            f"select actor_id, max(actor_name) as actor, {_LOCAL}::date as day, {studies} as studies,"
            " count(distinct patient) filter (where patient <> '') as patients,"
            " count(*) filter (where action = any($5)) as downloads"
            f" from audit where {within} and outcome = 'success' and ({_LOOKS}) group by actor_id, day having {studies} > $7"
            f" order by day, studies desc, actor_id limit {MAX_ROWS + 1}",
            *looks, settings.time_zone, bulk,
        ),
        "failed_sign_ins": await tx.fetch(
            "select object_id as user_id, source, count(*) as attempts, min(at) as first_at, max(at) as last_at"
            f" from audit where {within} and action = any($4) group by object_id, source"
            f" order by count(*) desc, object_id, source limit {MAX_ROWS + 1}",
            since, until, projects, list(REFUSED_SIGN_INS),
        ),
        "rights_changes": await tx.fetch(
            f"select * from audit where {within} and outcome = 'success' and strpos(action, '.') > 0"
            f" and split_part(action, '.', 1) = any($4) order by seq limit {MAX_ROWS + 1}",
            since, until, projects, list(RIGHTS),
        ),
        "exports": await tx.fetch(
            f"select * from audit where {within} and outcome = 'success'"
            " and (action like '%.exported' or reason <> '' and action = any($4))"
            f" order by seq limit {MAX_ROWS + 1}",
            since, until, projects, list(DOWNLOADS),
        ),
    }  # fmt: skip
    records = await tx.fetchval(f"select count(*) from audit where {within}", since, until, projects)
    kept = {name: rows[:MAX_ROWS] for name, rows in found.items()}
    return Report(
        since=since,
        until=until,
        time_zone=settings.time_zone,
        office_hours=settings.office_hours,
        bulk_studies=settings.bulk_studies,
        records=records,
        people=[Person(**dict(row)) for row in kept["people"]],
        patients=[PatientAccess(**dict(row)) for row in kept["patients"]],
        off_hours=[OffHours(**dict(row)) for row in kept["off_hours"]],
        bulk=[Bulk(**dict(row)) for row in kept["bulk"]],
        failed_sign_ins=[FailedSignIns(**dict(row)) for row in kept["failed_sign_ins"]],
        rights_changes=[
            Change(
                seq=row["seq"],
                at=row["at"],
                actor=row["actor_name"],
                action=row["action"],
                object={"kind": row["object_kind"], "id": row["object_id"]},
                project_id=row["project_id"],
                detail=msgspec.json.decode(row["detail"]),
            )
            for row in kept["rights_changes"]
        ],
        exports=[
            Export(
                seq=row["seq"],
                at=row["at"],
                actor=row["actor_name"],
                action=row["action"],
                object={"kind": row["object_kind"], "id": row["object_id"]},
                study_instance_uid=row["study_instance_uid"],
                project_id=row["project_id"],
                reason=row["reason"],
            )
            for row in kept["exports"]
        ],
        cut=[name for name, rows in found.items() if len(rows) > MAX_ROWS],
    )


# -- reviews ----------------------------------------------------------------------------------------------------------


def month_of(moment: datetime, time_zone: str) -> str:
    return moment.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m")


def month_before(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year - 1}-12" if number == 1 else f"{year}-{number - 1:02}"


def bounds_of(month: str, time_zone: str) -> tuple[datetime, datetime]:
    """Its first moment and that of the next one. Raises BadRequest."""
    try:
        start = datetime.strptime(month, "%Y-%m").replace(tzinfo=ZoneInfo(time_zone))
    except ValueError:
        raise BadRequest("A month is written like 2026-10.") from None
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start.astimezone(UTC), following.astimezone(UTC)


async def make_review(tx: WriteTx, settings: AuditSettings, month: str) -> bool:
    """The review of a month that is over, once. Whoever made it first has made it."""
    since, until = bounds_of(month, settings.time_zone)
    made = await report(tx, settings, since, until)
    body = msgspec.json.encode(made, order="deterministic")
    new = await tx.fetchval(
        "insert into audit_reviews (month, report) values ($1, $2) on conflict do nothing returning 1",
        month, body.decode(),
    )  # fmt: skip
    if new:
        digest = hashlib.sha256(body).hexdigest()
        data = {"sha256": digest, "records": made.records}
        await emit(tx, Event(type="audit_review.made", object_kind="audit_review", object_id=month, data=data))
    return bool(new)


async def list_reviews(tx: ReadTx) -> list[Review]:
    rows = await tx.fetch("select * from audit_reviews order by month desc limit 1200")  # a hundred years
    return [_review(row) for row in rows]


async def get_review(tx: ReadTx, month: str) -> Review:
    row = await tx.fetchrow("select * from audit_reviews where month = $1", month)
    if row is None:
        raise NotFound("There is no review of this month: it is made when the month is over.")
    return msgspec.structs.replace(_review(row), report=msgspec.json.decode(row["report"], type=Report))


async def sign_review(tx: WriteTx, month: str, note: str) -> Review:
    """The actor has read it. Raises NotFound, and Conflict when somebody has signed it already."""
    signed = await tx.fetchrow(
        "update audit_reviews set signed_by_id = $2, signed_by = $3, signed_at = now(), note = $4"
        " where month = $1 and signed_at is null returning *",
        month, tx.actor.user_id, tx.actor.name, note,
    )  # fmt: skip
    if signed is None:
        known = await get_review(tx, month)
        raise Conflict(f"The review of {month} was signed by {known.signed_by}.")
    review = _review(signed)
    await emit(
        tx,
        Event(type="audit_review.signed", object_kind="audit_review", object_id=month, data={"sha256": review.sha256}),
    )
    return review


def _review(row: Any) -> Review:
    return Review(
        month=row["month"],
        made_at=row["made_at"],
        sha256=hashlib.sha256(row["report"].encode()).hexdigest(),
        signed_by=row["signed_by"],
        signed_at=row["signed_at"],
        note=row["note"],
    )
