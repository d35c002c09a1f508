"""The one events table: activity feed, change feed, live updates, webhooks. Each event is an audit record as well.

A NOTIFY carries only the sequence number: listeners read the row, so nothing is lost between connections.
"""

from typing import Any
from uuid import UUID

import msgspec

from annotomy.audit import Entry, record
from annotomy.db.engine import WriteTx

CHANNEL = "annotomy_events"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, in the past tense: `study.stored`, `prediction.succeeded`."""

    type: str
    object_kind: str
    object_id: str
    project_id: UUID | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """Identifiers and numbers only: never patient data."""


async def emit(tx: WriteTx, event: Event) -> int:
    """Appends the event in the caller's transaction; listeners wake when it commits."""
    seq: int = await tx.fetchval(
        "insert into events (type, actor_id, actor_name, project_id, object_kind, object_id, data)"
        " values ($1, $2, $3, $4, $5, $6, $7) returning seq",
        event.type, tx.actor.user_id, tx.actor.name, event.project_id, event.object_kind, event.object_id, event.data,
    )  # fmt: skip
    await tx.execute("select pg_notify($1, $2)", CHANNEL, str(seq))
    study = event.object_id if event.object_kind == "study" else event.data.get("study_instance_uid")
    entry = Entry(
        action=event.type,
        object_kind=event.object_kind,
        object_id=event.object_id,
        project_id=event.project_id,
        study_instance_uid=study,
        detail=event.data,
    )
    await record(tx, entry)
    return seq
