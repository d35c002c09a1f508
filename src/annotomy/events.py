"""The one events table: activity feed, change feed, live updates, webhooks. Each event is an audit record as well.

Transactions commit in another order than they began, so an event gets its place in the feed (`seq`) after its commit, by
`number_events`, one caller at a time: whoever read up to a number has missed nothing before it. A NOTIFY only wakes.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec

from annotomy.audit import Entry, record_all, record_of_patient
from annotomy.db.engine import WriteTx

CHANNEL = "annotomy_events"
NUMBERING_LOCK = 0x6576656E  # any fixed number: one caller numbers at a time in this database
NUMBERING_BATCH = 5000
"""Events numbered in one transaction: a rush is numbered in several short ones."""


_WORK = {"annotation": "annotations", "segmentation": "segmentations", "prediction": "predictions"}
"""Kinds of objects that hang on a holding, and their tables."""
_HOLDING_OF_WORK = (
    "case kind "
    + " ".join(
        f"when '{kind}' then (select work.study_id from {table} work where work.id = object::uuid)"
        for kind, table in _WORK.items()
    )
    + " end"
)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, in the past tense: `study.stored`, `prediction.succeeded`."""

    type: str
    object_kind: str
    object_id: str
    project_id: UUID | None = None
    study_instance_uid: str | None = None
    """What it hangs on: who does not see this holding of it through the project does not see the event. Taken from
    `object_id` for a study."""
    series_instance_uid: str | None = None
    study_id: int | None = None
    """The holding of the study. Work that is kept knows its own."""
    outcome: str = "success"
    """Of the audit record: a refusal is a failure."""
    data: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """Identifiers and numbers only: never patient data."""
    reason: str = ""
    """Why, in the words of who did it: for the audit alone, the feed does not carry it."""


async def emit(tx: WriteTx, event: Event) -> None:
    """Appends the event in the caller's transaction; listeners wake when it commits."""
    if tx.gathered is not None:
        tx.gathered.append(event)
        return
    table = _WORK.get(event.object_kind)
    holding = "$11::bigint"
    if table is not None:
        holding = f"coalesce({holding}, (select work.study_id from {table} work where work.id = $6::text::uuid))"
    patient_id = await tx.fetchval(
        "with made as (insert into events (type, actor_id, actor_name, project_id, object_kind, object_id, study_instance_uid,"
        f" series_instance_uid, data, study_id) values ($1, $2, $3, $4, $5, $6::text, $7, $8, $9, {holding})),"
        " woken as (select pg_notify($10, ''))"
        " select (select p.patient_id from patients_of(array[$7], array[$4]) p) from woken",
        event.type, tx.actor.user_id, tx.actor.name, event.project_id, event.object_kind, event.object_id, _study_of(event),
        event.series_instance_uid or event.data.get("series_instance_uid"), event.data, CHANNEL,
        event.study_id,
    )  # fmt: skip
    await record_of_patient(tx, _entry(event), patient_id)


@asynccontextmanager
async def gathered(tx: WriteTx) -> AsyncGenerator[None]:
    """What is emitted in the block is appended at its end, all of it in a few statements: for changes of thousands."""
    assert tx.gathered is None
    tx.gathered = events = list[Event]()
    yield  # after an exception the transaction is rolled back, and nothing happened
    tx.gathered = None
    if not events:
        return
    await tx.execute(
        "with made as (insert into events (type, object_kind, object_id, project_id, study_instance_uid, series_instance_uid,"
        " data, study_id, actor_id, actor_name)"
        f" select type, kind, object, project, study, series, data, coalesce(holding, {_HOLDING_OF_WORK}), $9::uuid, $10::text"
        " from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::jsonb[], $8::bigint[])"
        " as e (type, kind, object, project, study, series, data, holding)) select pg_notify($11, '')",
        *zip(
            *(
                (one.type, one.object_kind, one.object_id, one.project_id, _study_of(one),
                 one.series_instance_uid or one.data.get("series_instance_uid"), one.data, one.study_id)
                for one in events
            ), strict=True,
        ),
        tx.actor.user_id, tx.actor.name, CHANNEL,
    )  # fmt: skip
    await record_all(tx, [_entry(one) for one in events])


def _study_of(event: Event) -> str | None:
    if event.study_instance_uid or event.object_kind == "study":
        return event.study_instance_uid or event.object_id
    return event.data.get("study_instance_uid")


def _entry(event: Event) -> Entry:
    return Entry(
        action=event.type,
        object_kind=event.object_kind,
        object_id=event.object_id,
        project_id=event.project_id,
        study_instance_uid=_study_of(event),
        outcome=event.outcome,
        detail=event.data,
        reason=event.reason,
    )


async def number_events(tx: WriteTx) -> int:
    """Gives committed events their places; returns how many. One caller at a time, in a transaction of its own."""
    await tx.execute("select pg_advisory_xact_lock($1)", NUMBERING_LOCK)
    # A statement of its own: its snapshot is taken after the lock, so that it sees what the last caller numbered.
    return await tx.fetchval(
        "with fresh as (select id, row_number() over (order by id) as place from (select id from events where seq is null"
        " order by id limit $1) f), last as (select coalesce(max(seq), 0) as n from events), numbered as ("
        " update events e set seq = last.n + fresh.place from fresh, last where e.id = fresh.id returning 1)"
        " select count(*) from numbered",
        NUMBERING_BATCH,
    )
