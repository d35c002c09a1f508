"""The feed: what happened, in one order, as far as the asker may know of it.

An event is its actor's own to see; one of an upload is its owner's and the administrators' alone. Others see it through its project: what hangs on a study (or series) when they see that
through the same project, an annotation or segmentation when their role reads others' work, the rest as members.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from annotomy.actor import SYSTEM
from annotomy.db.engine import Database, ReadTx
from annotomy.events import NUMBERING_BATCH, number_events
from annotomy.projects.access import VALID, visible_target, visible_work


class EventActor(msgspec.Struct, frozen=True):
    id: UUID
    name: str


class EventObject(msgspec.Struct, frozen=True):
    kind: str
    id: str


class FeedEvent(msgspec.Struct, frozen=True):
    seq: int
    type: str
    at: datetime
    actor: EventActor
    project_id: UUID | None
    object: EventObject
    data: dict[str, Any]


_MEMBER = (
    "exists (select from project_members m where m.project_id = e.project_id"
    " and m.user_id = (select nullif(current_setting('app.actor', true), '')::uuid) and " + VALID + ")"
)
_IN_CREDENTIAL = (
    "((select nullif(current_setting('app.project', true), '')) is null"
    " or e.project_id = any ((select nullif(current_setting('app.project', true), '')::uuid[])::uuid[]))"
)
_UPLOAD = (
    "e.object_kind = 'upload' and (exists (select from uploads u where u.id::text = e.object_id and u.owner_id = $1)"
    " or exists (select from users a where a.id = $1 and a.is_admin))"
)
_VISIBLE = (
    f"{_IN_CREDENTIAL} and (e.actor_id = $1 or {_UPLOAD} or e.object_kind <> 'upload' and {_MEMBER}"
    f" and (e.study_instance_uid is null and e.study_id is null or {visible_target('e')})"
    f" and (e.object_kind <> 'annotation' or {visible_work('annotation', 'e.project_id', 'e.actor_id')})"
    f" and (e.object_kind <> 'segmentation' or {visible_work('segmentation', 'e.project_id', 'e.actor_id')}))"
)


async def read_feed(
    tx: ReadTx, *, after: int, limit: int, project_id: UUID | None = None, object_id: str | None = None
) -> list[FeedEvent]:
    """Numbered events after a position, oldest first."""
    rows = await tx.fetch(
        "select e.seq, e.type, e.at, e.actor_id, e.actor_name, e.project_id, e.object_kind, e.object_id, e.data from events e"
        f" where e.seq > $2 and ($4::uuid is null or e.project_id = $4) and ($5::text is null or e.object_id = $5)"
        f" and {_VISIBLE} order by e.seq limit $3",
        tx.actor.user_id, after, limit, project_id, object_id,
    )  # fmt: skip
    return [
        FeedEvent(
            seq=row["seq"],
            type=row["type"],
            at=row["at"],
            actor=EventActor(row["actor_id"], row["actor_name"]),
            project_id=row["project_id"],
            object=EventObject(row["object_kind"], row["object_id"]),
            data=row["data"],
        )
        for row in rows
    ]


async def last_position(tx: ReadTx) -> int:
    """Where the feed ends now."""
    return await tx.fetchval("select coalesce(max(seq), 0) from events")


async def number_new_events(db: Database) -> int:
    """Gives every committed event its place, when any waits for one."""
    numbered = 0
    while True:
        async with db.read(SYSTEM) as tx:
            if not await tx.fetchval("select exists (select from events where seq is null)"):
                return numbered
        async with db.write(SYSTEM) as tx:
            done = await number_events(tx)
        numbered += done
        if done < NUMBERING_BATCH:
            return numbered
