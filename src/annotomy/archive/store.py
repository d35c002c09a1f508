"""The one store operation. STOW-RS, C-STORE, uploads and our own derived objects all come through here.

Order: parse, put the bytes durably, then one transaction for the batch with rows, events and the project's claim on the
study; only then is anything reported as stored (architecture: transactions). Storing the same bytes again is no error.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import structlog

from annotomy.actor import Actor
from annotomy.archive.errors import DifferentContent, HeldElsewhere, InconsistentHierarchy, InstanceTooLarge, NotDicom
from annotomy.archive.parse import ParsedInstance, parse_instance
from annotomy.db.engine import WriteTx
from annotomy.errors import Problem
from annotomy.events import Event, emit
from annotomy.ports import BlobStat
from annotomy.projects.access import sight_of_study
from annotomy.projects.service import hold_instances, hold_study, project_for_store
from annotomy.projects.visibility import settle_studies
from annotomy.services import Services

log = structlog.get_logger(__name__)

BATCH_INSTANCES = 64
"""Instances that share one transaction: long enough to share its fsync, short enough to hold no lock for long."""
BATCH_BYTES = 64 << 20
"""Bytes of one batch that are held in memory at most, besides one instance."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One DICOM file: its bytes, or a finished file on disk that may be moved away."""

    name: str
    data: bytes | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    name: str
    state: Literal["stored", "already", "refused"]
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """An instance whose bytes are durable and whose rows are not written yet."""

    name: str
    parsed: ParsedInstance
    blob: BlobStat

    def outcome(self, state: Literal["stored", "already", "refused"], problem: Problem | None = None) -> StoreOutcome:
        p = self.parsed
        return StoreOutcome(
            self.name, state, p.study_instance_uid, p.series_instance_uid, p.sop_instance_uid, p.sop_class_uid, problem
        )


async def store_instances(
    services: Services, actor: Actor, project_id: UUID | None, incoming: AsyncIterator[Incoming]
) -> list[StoreOutcome]:
    """Stores what can be stored and says for each file what became of it, in the order received.

    Raises NotFound or Forbidden when the actor may not store in the project; a bad file never ends the batch.
    """
    async with services.db.write(actor) as tx:
        project = await project_for_store(tx, actor, project_id)
    outcomes: list[StoreOutcome] = []
    batch: list[_Kept | StoreOutcome] = []
    held_bytes = 0
    async for file in incoming:
        kept = await _keep_bytes(services, file)
        batch.append(kept)
        held_bytes += kept.blob.size if isinstance(kept, _Kept) else 0
        if len(batch) >= BATCH_INSTANCES or held_bytes >= BATCH_BYTES:
            outcomes += await _commit(services, actor, project, batch)
            batch, held_bytes = [], 0
    if batch:
        outcomes += await _commit(services, actor, project, batch)
    return outcomes


async def keep_derived(services: Services, file: Incoming) -> "_Kept":
    """The first half of storing an object that we made ourselves: its bytes are durable, no row exists. Raises StoreRefused."""
    kept = await _keep_bytes(services, file)
    if isinstance(kept, StoreOutcome):
        assert kept.problem is not None, "a refusal says why"
        raise kept.problem
    return kept


async def write_derived(tx: WriteTx, project_id: UUID, kept: "_Kept") -> StoreOutcome:
    """The second half, in the transaction (unrestricted) of what the object shows. Raises StoreRefused.

    The caller has decided the right to make it: who may draw in a project need not be one who may store in it.
    """
    # Whose work a series shows decides who reads it: a blinded reader does not see the masks of others.
    columns = kept.parsed.series_columns | {"owner_id": tx.actor.user_id}
    owned = replace(kept, parsed=replace(kept.parsed, series_columns=columns))
    [outcome] = (await _write_rows(tx, project_id, [owned])).values()
    if outcome.problem is not None:
        raise outcome.problem
    return outcome


async def _keep_bytes(services: Services, file: Incoming) -> "_Kept | StoreOutcome":
    limit = services.settings.limits.instance_bytes
    size = len(file.data) if file.data is not None else _path(file).stat().st_size
    if size > limit:
        problem = InstanceTooLarge("The instance is over the limit.", limit_bytes=limit)
        return StoreOutcome(file.name, "refused", problem=problem)
    try:
        parsed = await asyncio.to_thread(parse_instance, file.data if file.data is not None else _path(file))
    except NotDicom as problem:
        return StoreOutcome(file.name, "refused", problem=problem)
    blob = await (services.blobs.put(file.data) if file.data is not None else services.blobs.put_file(_path(file)))
    return _Kept(file.name, parsed, blob)


def _path(file: Incoming) -> Path:
    assert file.path is not None, "an incoming file has data or a path"
    return file.path


async def _commit(
    services: Services, actor: Actor, project_id: UUID, batch: "list[_Kept | StoreOutcome]"
) -> list[StoreOutcome]:
    kept = [item for item in batch if isinstance(item, _Kept)]
    done: dict[int, StoreOutcome] = {}
    if kept:
        async with services.db.write(actor, unrestricted=True) as tx:
            done = await _write_rows(tx, project_id, kept)
    return [item if isinstance(item, StoreOutcome) else done[id(item)] for item in batch]


async def _write_rows(tx: WriteTx, project_id: UUID, kept: list[_Kept]) -> dict[int, StoreOutcome]:
    outcomes: dict[int, StoreOutcome] = {}
    by_study: dict[str, list[_Kept]] = {}
    for item in kept:
        by_study.setdefault(item.parsed.study_instance_uid, []).append(item)
    blobs = sorted({(item.blob.address, item.blob.size) for item in kept})
    await tx.executemany("insert into blobs (address, size) values ($1, $2) on conflict do nothing", blobs)
    for study_instance_uid in sorted(by_study):  # one order for everyone: no deadlock between senders
        outcomes |= await _write_study(tx, project_id, study_instance_uid, by_study[study_instance_uid])
    return outcomes


async def _write_study(
    tx: WriteTx, project_id: UUID, study_instance_uid: str, items: list[_Kept]
) -> dict[int, StoreOutcome]:
    study_id, is_new = await _study_row(tx, items[0].parsed)
    sight = "whole" if is_new else await sight_of_study(tx, tx.actor, study_id)
    if sight == "none":
        # Nobody gains a study by naming its UID.
        problem = HeldElsewhere("The study is kept where you have no access.")
        return {id(item): item.outcome("refused", problem) for item in items}
    outcomes: dict[int, StoreOutcome] = {}
    by_series: dict[str, list[_Kept]] = {}
    for item in items:
        by_series.setdefault(item.parsed.series_instance_uid, []).append(item)
    for series_instance_uid in sorted(by_series):
        outcomes |= await _write_series(tx, study_id, by_series[series_instance_uid])
    stored = sum(outcome.state == "stored" for outcome in outcomes.values())
    if stored:
        await tx.execute(_RECOUNT_STUDY, study_id)
        event = Event(
            type="study.stored",
            object_kind="study",
            object_id=study_instance_uid,
            project_id=project_id,
            data={"instances": stored},
        )
        await emit(tx, event)
    if all(outcome.state == "refused" for outcome in outcomes.values()):
        await tx.execute("delete from studies where id = $1 and instance_count = 0", study_id)
        return outcomes
    if sight == "whole":
        await hold_study(tx, project_id, study_id, added_by=tx.actor.user_id)
    else:  # who sees a part brings in what they bring, and gains nothing else of the study
        sent = [outcome.sop_instance_uid for outcome in outcomes.values() if outcome.state == "stored"]
        await hold_instances(tx, project_id, study_id, sent, added_by=tx.actor.user_id)
    await settle_studies(tx, [study_id])
    return outcomes


async def _write_series(tx: WriteTx, study_id: int, members: list[_Kept]) -> dict[int, StoreOutcome]:
    series_id = await _series_row(tx, study_id, members[0].parsed)
    if series_id is None:
        problem = InconsistentHierarchy("The series is known as part of another study.")
        return {id(item): item.outcome("refused", problem) for item in members}
    outcomes = {id(item): await _instance_row(tx, study_id, series_id, item) for item in members}
    sizes = [item.blob.size for item in members if outcomes[id(item)].state == "stored"]
    await tx.execute(
        "update series set instance_count = instance_count + $2, bytes = bytes + $3, updated_at = now() where id = $1",
        series_id, len(sizes), sum(sizes),
    )  # fmt: skip
    await tx.execute("delete from series where id = $1 and instance_count = 0", series_id)
    return outcomes


_RECOUNT_STUDY = """
update studies set series_count = s.n, instance_count = s.instances, bytes = s.bytes, modalities = s.modalities,
  updated_at = now()
from (select count(*) as n, sum(instance_count) as instances, sum(bytes) as bytes,
             coalesce(array_agg(distinct modality) filter (where modality <> ''), '{}') as modalities
      from series where study_id = $1) s
where id = $1"""


async def _study_row(tx: WriteTx, parsed: ParsedInstance) -> tuple[int, bool]:
    """The study's key and whether it was made just now; its row is locked until the end, which serialises the counts.

    Not `for update`: rows that name the study may be written by others meanwhile (projects/visibility.py).
    """
    statement = _insert("studies", parsed.study_columns, "on conflict (study_instance_uid) do nothing returning id")
    made = await tx.fetchval(*statement)
    if made is not None:
        return made, True
    known = await tx.fetchval(
        "select id from studies where study_instance_uid = $1 for no key update", parsed.study_instance_uid
    )
    return known, False


async def _series_row(tx: WriteTx, study_id: int, parsed: ParsedInstance) -> int | None:
    columns = {"study_id": study_id, **parsed.series_columns}
    await tx.execute(*_insert("series", columns, "on conflict (series_instance_uid) do nothing"))
    return await tx.fetchval(
        "select id from series where series_instance_uid = $1 and study_id = $2", parsed.series_instance_uid, study_id
    )


async def _instance_row(tx: WriteTx, study_id: int, series_id: int, item: _Kept) -> StoreOutcome:
    columns = {
        "study_id": study_id,
        "series_id": series_id,
        "blob_address": item.blob.address,
        "blob_size": item.blob.size,
        **item.parsed.instance_columns,
    }
    instance_id = await tx.fetchval(
        *_insert("instances", columns, "on conflict (sop_instance_uid) do nothing returning id")
    )
    if instance_id is not None:
        await tx.execute(
            "insert into instance_headers (instance_id, header, frames) values ($1, $2, $3)",
            instance_id, item.parsed.header, item.parsed.frames,
        )  # fmt: skip
        return item.outcome("stored")
    known = await tx.fetchrow(
        "select blob_address, series_id from instances where sop_instance_uid = $1", item.parsed.sop_instance_uid
    )
    assert known is not None
    if known["blob_address"] == item.blob.address and known["series_id"] == series_id:
        return item.outcome("already")
    return item.outcome("refused", DifferentContent("An instance of this UID is kept with another content."))


def _insert(table: str, columns: dict[str, Any], suffix: str) -> tuple[Any, ...]:
    names = ", ".join(columns)
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    return (f"insert into {table} ({names}) values ({places}) {suffix}", *columns.values())
