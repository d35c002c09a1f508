"""The one store operation. STOW-RS, C-STORE, uploads and our own derived objects all come through here.

Order: parse, put the bytes durably, then one transaction for the batch with rows, events and the project's claim on the
study; only then is anything reported as stored (architecture: transactions). Storing the same bytes again is no error.

A study UID may be kept more than once (docs/decisions/0010): an instance goes to a holding that the sender sees as a whole, or to
one that they alone have filled. So what others keep under the same UIDs neither shows in an answer nor stands in the way.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import structlog

from annotomy.actor import Actor
from annotomy.archive.arrivals import enqueue_taking
from annotomy.archive.errors import (
    AnotherInstance,
    DifferentContent,
    InstanceTooLarge,
    NotDicom,
)
from annotomy.archive.parse import ParsedInstance, parse_instance
from annotomy.archive.quotas import refuse_beyond
from annotomy.db.engine import WriteTx
from annotomy.errors import NotFound, Problem
from annotomy.events import Event, emit
from annotomy.ports import BlobStat
from annotomy.projects.access import study_to_grow
from annotomy.projects.service import hold_instances, hold_study, project_for_store
from annotomy.projects.visibility import settle_studies
from annotomy.services import Services

log = structlog.get_logger(__name__)

BATCH_INSTANCES = 64
"""Instances that share one transaction: long enough to share its fsync, short enough to hold no lock for long."""
BATCH_BYTES = 64 << 20
"""Bytes of one batch that are held in memory at most, besides one instance."""


KEPT_AT_ONCE = 8
"""Of one sender: what a disk can group into one flush, without starving other senders of threads."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One DICOM file: its bytes, or a finished file on disk that may be moved away."""

    name: str
    data: bytes | None = None
    path: Path | None = None
    announced: tuple[str, str] | None = None
    """SOP class and instance UID that a message around it names: refused when the file holds others."""
    among: Container[tuple[str, str, str]] | None = None
    """Study, series and instance UIDs that were asked for: a file of any others is refused before its bytes are kept."""


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    name: str
    state: Literal["stored", "already", "used", "refused"]
    """`used`, of uploads only: a file that others could not be read without (raw data, a media directory)."""
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    problem: Problem | None = None
    size: int = 0
    """Bytes of the instance."""
    instance_id: int | None = None
    """The key of what is kept; None of what was refused."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An instance whose bytes are durable and whose rows are not written yet."""

    name: str
    parsed: ParsedInstance
    blob: BlobStat

    def outcome(
        self,
        state: Literal["stored", "already", "refused"],
        problem: Problem | None = None,
        instance_id: int | None = None,
    ) -> StoreOutcome:
        p = self.parsed
        return StoreOutcome(
            self.name,
            state,
            p.study_instance_uid,
            p.series_instance_uid,
            p.sop_instance_uid,
            p.sop_class_uid,
            problem,
            self.blob.size,
            instance_id,
        )


async def store_instances(
    services: Services,
    actor: Actor,
    project_id: UUID | None,
    incoming: AsyncIterator[Incoming],
    *,
    taking: bool = False,
    told: Callable[[list[StoreOutcome]], Awaitable[None]] | None = None,
    claimed: bool = False,
) -> list[StoreOutcome]:
    """Stores what can be stored and says for each file what became of it, in the order received.

    `taking`: SEG, RTSTRUCT and SR among them become segmentations and annotations by jobs (arrivals.py). `claimed`: the quota
    was asked before, as uploads do. `told` hears all that is known so far after each batch that was committed.

    Raises NotFound or Forbidden when the actor may not store in the project; a bad file never ends the batch.
    """
    async with services.db.write(actor) as tx:
        project = await project_for_store(tx, actor, project_id)
    outcomes: list[StoreOutcome] = []
    async for batch in _kept_batches(services, incoming):
        outcomes += await _commit_mixed(services, actor, project, batch, taking=taking, claimed=claimed)
        if told is not None:
            await told(outcomes)
    return outcomes


async def _kept_batches(
    services: Services, incoming: AsyncIterator[Incoming]
) -> "AsyncIterator[list[Kept | StoreOutcome]]":
    """In the order received. Files in memory are kept side by side, since most of the time of each is waiting for the
    disk; one that lies on the disk is gone with the next step of `incoming`, so it is kept before."""
    batch: list[asyncio.Task[Kept | StoreOutcome]] = []
    held_bytes = 0
    few = asyncio.Semaphore(KEPT_AT_ONCE)

    async def keep_one(file: Incoming) -> Kept | StoreOutcome:
        async with few:
            return await keep(services, file)

    try:
        async for file in incoming:
            batch.append(asyncio.create_task(keep_one(file)))
            if file.data is None:
                held_bytes += _path(file).stat().st_size
                await batch[-1]
            else:
                held_bytes += len(file.data)
            if len(batch) >= BATCH_INSTANCES or held_bytes >= BATCH_BYTES:
                yield [await one for one in batch]
                batch, held_bytes = [], 0
        if batch:
            yield [await one for one in batch]
    finally:  # nothing is put any more once this has ended, however it ended
        await asyncio.gather(*batch, return_exceptions=True)


async def keep_derived(services: Services, file: Incoming) -> Kept:
    """The first half of storing an object that we made ourselves: its bytes are durable, no row exists. Raises StoreRefused."""
    kept = await keep(services, file)
    if isinstance(kept, StoreOutcome):
        assert kept.problem is not None, "a refusal says why"
        raise kept.problem
    return kept


async def write_derived(
    tx: WriteTx, project_id: UUID, study_id: int, kept: Kept, *, owner_id: UUID | None = None
) -> StoreOutcome:
    """The second half, in the transaction (unrestricted) of what the object shows. Raises StoreRefused, or NotFound for a study
    that has gone.

    The caller has decided the right to make it: who may draw in a project need not be one who may store in it. It belongs to
    the very holding that it was made from. `owner_id` is whose work it shows, where that is not the actor's.
    """
    # Whose work a series shows decides who reads it: a blinded reader does not see the masks of others.
    columns = kept.parsed.series_columns | {"owner_id": owner_id or tx.actor.user_id}
    owned = replace(kept, parsed=replace(kept.parsed, series_columns=columns))
    if await tx.fetchval("select id from studies where id = $1 for no key update", study_id) is None:
        raise NotFound("There is no such study.")
    [outcome] = (await _write_study(tx, project_id, study_id, [owned], is_new=False, charged=False)).values()
    if outcome.problem is not None:
        raise outcome.problem
    await hold_instances(tx, project_id, study_id, [outcome.sop_instance_uid], added_by=tx.actor.user_id)
    await settle_studies(tx, [study_id])
    return outcome


async def keep(services: Services, file: Incoming) -> "Kept | StoreOutcome":
    """The first half: parsed, and its bytes durable; or what is wrong with it."""
    limit = services.settings.limits.instance_bytes
    size = len(file.data) if file.data is not None else _path(file).stat().st_size
    if size > limit:
        problem = InstanceTooLarge("The instance is over the limit.", limit_bytes=limit)
        return StoreOutcome(file.name, "refused", problem=problem)
    try:
        parsed = await asyncio.to_thread(parse_instance, file.data if file.data is not None else _path(file))
    except NotDicom as problem:
        return StoreOutcome(file.name, "refused", problem=problem)
    if file.announced not in (None, (parsed.sop_class_uid, parsed.sop_instance_uid)):
        return StoreOutcome(
            file.name, "refused", problem=AnotherInstance("The data set is not the instance that was announced.")
        )
    uids = (parsed.study_instance_uid, parsed.series_instance_uid, parsed.sop_instance_uid)
    if file.among is not None and uids not in file.among:
        return StoreOutcome(
            file.name, "refused", problem=AnotherInstance("The data set is not one that was asked for.")
        )
    blob = await (services.blobs.put(file.data) if file.data is not None else services.blobs.put_file(_path(file)))
    return Kept(file.name, parsed, blob)


async def commit(services: Services, actor: Actor, project_id: UUID | None, kept: list[Kept]) -> list[StoreOutcome]:
    """The second half: one transaction, with the right to store decided in it. Acknowledge after it returned.

    SEG, RTSTRUCT and SR among them are taken over by jobs (arrivals.py).

    Raises NotFound or Forbidden when the actor may not store in the project.
    """
    async with services.db.write(actor, unrestricted=True) as tx:
        project = await project_for_store(tx, actor, project_id)
        done = await _write_within_quota(services, tx, project, kept)
        await enqueue_taking(tx, project, done.values())
    return [done[id(item)] for item in kept]


def _path(file: Incoming) -> Path:
    assert file.path is not None, "an incoming file has data or a path"
    return file.path


async def _commit_mixed(
    services: Services,
    actor: Actor,
    project_id: UUID,
    batch: "list[Kept | StoreOutcome]",
    *,
    taking: bool,
    claimed: bool,
) -> list[StoreOutcome]:
    kept = [item for item in batch if isinstance(item, Kept)]
    done: dict[int, StoreOutcome] = {}
    if kept:
        async with services.db.write(actor, unrestricted=True) as tx:
            if claimed:
                done = await _write_rows(tx, project_id, kept)
            else:
                done = await _write_within_quota(services, tx, project_id, kept)
            if taking:
                await enqueue_taking(tx, project_id, done.values())
    return [item if isinstance(item, StoreOutcome) else done[id(item)] for item in batch]


async def _write_within_quota(
    services: Services, tx: WriteTx, project_id: UUID, kept: list[Kept]
) -> dict[int, StoreOutcome]:
    sizes = [item.blob.size for item in kept]
    refused = await refuse_beyond(tx, services.settings.limits, tx.actor.user_id, project_id, sizes)
    done = {id(kept[position]): kept[position].outcome("refused", problem) for position, problem in refused.items()}
    return done | await _write_rows(tx, project_id, [item for item in kept if id(item) not in done])


async def _write_rows(tx: WriteTx, project_id: UUID, kept: list[Kept]) -> dict[int, StoreOutcome]:
    outcomes: dict[int, StoreOutcome] = {}
    by_study: dict[str, list[Kept]] = {}
    for item in kept:
        by_study.setdefault(item.parsed.study_instance_uid, []).append(item)
    for study_instance_uid in sorted(by_study):  # one order for everyone: no deadlock between senders
        items = by_study[study_instance_uid]
        study_id, is_new = await _study_row(tx, project_id, items[0].parsed)
        written = await _write_study(tx, project_id, study_id, items, is_new=is_new, charged=True)
        outcomes |= written
        if all(outcome.state == "refused" for outcome in written.values()):
            await tx.execute("delete from studies where id = $1 and instance_count = 0", study_id)
            continue
        await hold_study(tx, project_id, study_id, added_by=tx.actor.user_id)
        await settle_studies(tx, [study_id])
    return outcomes


async def _write_study(
    tx: WriteTx, project_id: UUID, study_id: int, items: list[Kept], *, is_new: bool, charged: bool
) -> dict[int, StoreOutcome]:
    """`charged`: the instances count for their sender and the project; what we make ourselves does not."""
    outcomes: dict[int, StoreOutcome] = {}
    by_series: dict[str, list[Kept]] = {}
    for item in items:
        by_series.setdefault(item.parsed.series_instance_uid, []).append(item)
    recount = is_new
    for series_instance_uid in sorted(by_series):
        written, series_is_new = await _write_series(
            tx, study_id, by_series[series_instance_uid], project_id if charged else None
        )
        outcomes |= written
        recount |= series_is_new
    stored = sum(outcome.state == "stored" for outcome in outcomes.values())
    if stored:
        if recount:
            await tx.execute(_RECOUNT_STUDY, study_id)
        event = Event(
            type="study.stored",
            object_kind="study",
            object_id=items[0].parsed.study_instance_uid,
            project_id=project_id,
            study_id=study_id,
            data={"instances": stored},
        )
        await emit(tx, event)
    return outcomes


async def _write_series(
    tx: WriteTx, study_id: int, members: list[Kept], charged_project_id: UUID | None
) -> tuple[dict[int, StoreOutcome], bool]:
    """The outcomes, and whether the series was made just now."""
    series_id, is_new = await _series_row(tx, study_id, members[0].parsed)
    outcomes = await _instance_rows(tx, study_id, series_id, members, charged_project_id)
    sizes = [item.blob.size for item in members if outcomes[id(item)].state == "stored"]
    if sizes:
        await tx.execute(_COUNT_MORE, series_id, study_id, len(sizes), sum(sizes))
    elif is_new:
        await tx.execute("delete from series where id = $1 and instance_count = 0", series_id)
    return outcomes, is_new


# The study's row is locked since it was found, so that sums may be added to.
_COUNT_MORE = """
with s as (update series set instance_count = instance_count + $3, bytes = bytes + $4, updated_at = now() where id = $1)
update studies set instance_count = instance_count + $3, bytes = bytes + $4, updated_at = now() where id = $2"""

_RECOUNT_STUDY = """
update studies set series_count = s.n, instance_count = s.instances, bytes = s.bytes, modalities = s.modalities,
  updated_at = now()
from (select count(*) as n, sum(instance_count) as instances, sum(bytes) as bytes,
             coalesce(array_agg(distinct modality) filter (where modality <> ''), '{}') as modalities
      from series where study_id = $1) s
where id = $1"""


async def _study_row(tx: WriteTx, project_id: UUID, parsed: ParsedInstance) -> tuple[int, bool]:
    """The key of the holding that the sender's instances go to and whether it was made just now; its row is locked until the
    end, which serialises the counts.

    Not `for update`: rows that name the study may be written by others meanwhile (projects/visibility.py).
    """
    uid, sender = parsed.study_instance_uid, tx.actor.user_id
    columns = {**parsed.study_columns, "stored_into": project_id, "sole_sender": sender}
    make = _insert(
        "studies", columns, "on conflict (study_instance_uid, stored_into, sole_sender) do nothing returning id"
    )
    while True:
        own = await tx.fetchval("select own_holding($1, $2, $3)", uid, project_id, sender)
        if own is not None:
            return own, False
        grown = await study_to_grow(tx, tx.actor, project_id, uid)
        if grown is not None:
            if grown.sole_sender not in (None, sender):
                await tx.execute("update studies set sole_sender = null where id = $1", grown.id)
            return grown.id, False
        made = await tx.fetchval(*make)
        if made is not None:
            return made, True
        # Their own holding was taken out of the project: nothing tells whether it still exists, so they begin another.
        await tx.execute(
            "update studies st set sole_sender = null"
            " where st.study_instance_uid = $1 and st.stored_into = $2 and st.sole_sender = $3",
            uid, project_id, sender,
        )  # fmt: skip


async def _series_row(tx: WriteTx, study_id: int, parsed: ParsedInstance) -> tuple[int, bool]:
    """The series' key and whether it was made just now. The lock on the study's row keeps others from making it meanwhile."""
    known = await tx.fetchval(
        "select id from series where series_instance_uid = $1 and study_id = $2", parsed.series_instance_uid, study_id
    )
    if known is not None:
        return known, False
    return await tx.fetchval(*_insert("series", {"study_id": study_id, **parsed.series_columns}, "returning id")), True


_INSTANCE_TYPES = {
    "sop_instance_uid": "text", "sop_class_uid": "text", "transfer_syntax_uid": "text", "instance_number": "integer",
    "image_rows": "integer", "image_columns": "integer", "number_of_frames": "integer", "attributes": "jsonb",
    "rule_values": "jsonb", "data_set_digest": "bytea",
}  # fmt: skip
"""What parsing says of an instance, as columns."""
_KEPT_TYPES = {**_INSTANCE_TYPES, "blob_address": "text", "blob_size": "bigint", "header": "bytea", "frames": "bytea"}
# One statement for the rows of a series' new instances: a round trip for each would be most of the time of a store.
_INSERT_INSTANCES = f"""
with kept as (
  select * from unnest({", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_KEPT_TYPES.values(), 5))})
    with ordinality as t ({", ".join(_KEPT_TYPES)}, ordinality)
), held as (
  insert into blobs (address, size) select distinct blob_address, blob_size from kept order by 1 on conflict do nothing
), made as (
  insert into instances (study_id, series_id, charged_user_id, charged_project_id, blob_address, blob_size, {", ".join(_INSTANCE_TYPES)})
  select $1::bigint, $2::bigint, $3::uuid, $4::uuid, blob_address, blob_size, {", ".join(_INSTANCE_TYPES)} from kept order by ordinality
  on conflict (sop_instance_uid, study_id) do nothing returning id, sop_instance_uid, blob_address
), headers as (
  insert into instance_headers (instance_id, header, frames)
  select distinct on (made.id) made.id, kept.header, kept.frames
  from made join kept using (sop_instance_uid, blob_address) order by made.id, ordinality
)
select sop_instance_uid, blob_address, id from made"""


async def _instance_rows(
    tx: WriteTx, study_id: int, series_id: int, members: list[Kept], charged_project_id: UUID | None
) -> dict[int, StoreOutcome]:
    rows = [
        {
            **item.parsed.instance_columns,
            "blob_address": item.blob.address,
            "blob_size": item.blob.size,
            "header": item.parsed.header,
            "frames": item.parsed.frames,
        }
        for item in members
    ]
    assert rows[0].keys() == _KEPT_TYPES.keys(), "a column that parsing gives has no type above"
    columns = [[row[name] for row in rows] for name in _KEPT_TYPES]
    user_id = tx.actor.user_id if charged_project_id is not None else None
    made = await tx.fetch(_INSERT_INSTANCES, study_id, series_id, user_id, charged_project_id, *columns)
    new = {(row["sop_instance_uid"], row["blob_address"]): row["id"] for row in made}
    outcomes: dict[int, StoreOutcome] = {}
    rest: list[Kept] = []
    for item in members:
        key = (item.parsed.sop_instance_uid, item.blob.address)
        if key in new:
            # A second copy in the same batch is one that is kept already.
            outcomes[id(item)] = item.outcome("stored", instance_id=new.pop(key))
        else:
            rest.append(item)
    if rest:
        found = await tx.fetch(
            "select sop_instance_uid, data_set_digest, series_id, id from instances"
            " where study_id = $1 and sop_instance_uid = any($2)",
            study_id, [item.parsed.sop_instance_uid for item in rest],
        )  # fmt: skip
        known = {row["sop_instance_uid"]: row for row in found}
        for item in rest:
            digest = item.parsed.instance_columns["data_set_digest"]
            same = known[item.parsed.sop_instance_uid]
            if (same["data_set_digest"], same["series_id"]) == (digest, series_id):
                outcomes[id(item)] = item.outcome("already", instance_id=same["id"])
            else:
                problem = DifferentContent("An instance of this UID is kept with another content.")
                outcomes[id(item)] = item.outcome("refused", problem)
    return outcomes


def _insert(table: str, columns: dict[str, Any], suffix: str) -> tuple[Any, ...]:
    names = ", ".join(columns)
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    return (f"insert into {table} ({names}) values ({places}) {suffix}", *columns.values())
