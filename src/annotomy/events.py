"""The one events table: activity feed, change feed, live updates, webhooks. Each event is an audit record as well.

Transactions commit in another order than they began, so an event gets its place in the feed (`seq`) after its commit, by
`number_events`, one caller at a time: whoever read up to a number has missed nothing before it. A NOTIFY only wakes.
"""

from typing import Any
from uuid import UUID

import msgspec

from annotomy.audit import Entry, record
from annotomy.db.engine import WriteTx

CHANNEL = "annotomy_events"
NUMBERING_LOCK = 0x6576656E  # any fixed number: one caller numbers at a time in this database
NUMBERING_BATCH = 5000
"""Events numbered in one transaction: a rush is numbered in several short ones."""


_WORK = {"annotation": "annotations", "segmentation": "segmentations", "prediction": "predictions"}
"""Kinds of objects that hang on a holding, and their tables."""


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
    study = event.study_instance_uid or (
        event.object_id if event.object_kind == "study" else event.data.get("study_instance_uid")
    )
    table = _WORK.get(event.object_kind)
    holding = "$11::bigint"
    if table is not None:
        holding = f"coalesce({holding}, (select work.study_id from {table} work where work.id = $6::text::uuid))"
    await tx.execute(
        "with made as (insert into events (type, actor_id, actor_name, project_id, object_kind, object_id, study_instance_uid,"
        f" series_instance_uid, data, study_id) values ($1, $2, $3, $4, $5, $6::text, $7, $8, $9, {holding}))"
        " select pg_notify($10, '')",
        event.type, tx.actor.user_id, tx.actor.name, event.project_id, event.object_kind, event.object_id, study,
        event.series_instance_uid or event.data.get("series_instance_uid"), event.data, CHANNEL,
        event.study_id,
    )  # fmt: skip
    entry = Entry(
        action=event.type,
        object_kind=event.object_kind,
        object_id=event.object_id,
        project_id=event.project_id,
        study_instance_uid=study,
        outcome=event.outcome,
        detail=event.data,
        reason=event.reason,
    )
    await record(tx, entry)


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
