"""Thousands in one call: created, edited, deleted or reviewed, with a result for each item.

Everything is checked and measured first; then one transaction writes what passed. With `atomic`, one failure keeps all.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.annotations import service
from annotomy.annotations.annotate import prepare_edit, split_patch
from annotomy.annotations.errors import BatchRefused
from annotomy.annotations.prepare import Prepared, complete, prepare_new
from annotomy.annotations.rights import SEEN, Action, readable, require_right
from annotomy.annotations.schemas import Annotation, NewAnnotation
from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import Problem
from annotomy.http.idempotency import Answer, Keyed, claim, remember, replay
from annotomy.http.reasons import Why
from annotomy.services import Services

MAX_ITEMS = 5000
"""Of one call: about 16 MB of JSON at most, and a transaction of some seconds."""


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: UUID
    version: Annotated[int, msgspec.Meta(ge=1)]
    """The version that the edit starts from."""
    patch: dict[str, Any]


class Removal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: UUID
    version: Annotated[int, msgspec.Meta(ge=1)]


class CreateBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[NewAnnotation], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]
    atomic: bool = False


class EditBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[Edit], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]
    atomic: bool = False


class DeleteBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[list[Removal], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]
    atomic: bool = False
    why: Why = ""


class StepBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: Literal["submit", "approve", "reject", "reopen"]
    items: Annotated[list[Removal], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]
    atomic: bool = False
    why: Why = ""


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of the item at the same place in the request: the status that it would have had alone."""

    status: int
    id: UUID | None = None
    version: int | None = None
    problem: dict[str, Any] | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    results: list[Result]
    succeeded: int
    failed: int


Write = Callable[[WriteTx], Awaitable[Annotation]]
"""One item's change, prepared."""


async def create_batch(services: Services, actor: Actor, batch: CreateBatch, *, asked: Keyed | None) -> Answer:
    checked: list[Prepared | Problem] = []
    async with services.db.read(actor) as tx:
        known = await replay(tx, asked)
        if known is not None:
            return known
        for new in batch.items:
            try:
                checked.append(await prepare_new(tx, new))
            except Problem as problem:
                checked.append(problem)
    measured = [await _measured(services, one) for one in checked]
    writes = [
        one if isinstance(one, Problem) else _creation(one, new) for one, new in zip(measured, batch.items, strict=True)
    ]
    return await _write_all(services, actor, writes, atomic=batch.atomic, status=201, asked=asked)


async def take_in(services: Services, actor: Actor, news: Sequence[NewAnnotation]) -> list[Result]:
    """Create by import: what the study has under the same tracking UID already answers 200 and stays as it is."""
    outcomes: list[Prepared | Problem | Result] = []
    async with services.db.read(actor) as tx:
        for new in news:
            try:
                known = await _tracked(tx, new)
                outcomes.append(await prepare_new(tx, new) if known is None else known)
            except Problem as problem:
                outcomes.append(problem)
    measured = [one if isinstance(one, Result) else await _measured(services, one) for one in outcomes]
    results: list[Result] = []
    made: dict[tuple[str, str], Result] = {}
    async with services.db.write(actor) as tx:
        for one, new in zip(measured, news, strict=True):
            if isinstance(one, Result):
                results.append(one)
            elif isinstance(one, Problem):
                results.append(_result(one, 0))
            elif (new.study_instance_uid, new.tracking_uid or "") in made:
                results.append(made[new.study_instance_uid, new.tracking_uid or ""])
            else:
                created = await service.create(tx, one, tracking_uid=new.tracking_uid, action="import")
                results.append(_result(created, 201))
                if new.tracking_uid:
                    made[new.study_instance_uid, new.tracking_uid] = Result(200, id=created.id, version=1)
    return results


async def _tracked(tx: ReadTx, new: NewAnnotation) -> Result | None:
    if new.tracking_uid is None:
        return None
    await require_right(tx, Action.CREATE, new.project_id)
    row = await tx.fetchrow(
        f"select a.id, a.version from annotations a {SEEN} where a.study_instance_uid = $1 and a.project_id = $2"
        f" and a.tracking_uid = $3 and {readable('a')} order by a.id limit 1",
        new.study_instance_uid, new.project_id, new.tracking_uid,
    )  # fmt: skip
    return None if row is None else Result(200, id=row["id"], version=row["version"])


async def edit_batch(services: Services, actor: Actor, batch: EditBatch, *, asked: Keyed | None) -> Answer:
    checked: list[Prepared | Problem] = []
    async with services.db.read(actor) as tx:
        known = await replay(tx, asked)
        if known is not None:
            return known
        for item in batch.items:
            try:
                _, patch = split_patch(item.patch)
                checked.append(await prepare_edit(tx, item.id, patch, expected_version=item.version))
            except Problem as problem:
                checked.append(problem)
    measured = [await _measured(services, one) for one in checked]
    writes = [
        one if isinstance(one, Problem) else _edit(item, one) for one, item in zip(measured, batch.items, strict=True)
    ]
    return await _write_all(
        services, actor, writes, atomic=batch.atomic, status=200, asked=asked, order=_by_id(batch.items)
    )


async def _measured(services: Services, checked: Prepared | Problem) -> Prepared | Problem:
    try:
        return checked if isinstance(checked, Problem) else await complete(services, checked)
    except Problem as problem:
        return problem


async def delete_batch(services: Services, actor: Actor, batch: DeleteBatch, *, asked: Keyed | None) -> Answer:
    writes = [_deletion(item, batch.why) for item in batch.items]
    return await _write_all(
        services, actor, writes, atomic=batch.atomic, status=204, asked=asked, order=_by_id(batch.items)
    )


async def step_batch(services: Services, actor: Actor, batch: StepBatch, *, asked: Keyed | None) -> Answer:
    writes = [_step(item, batch.step, batch.why) for item in batch.items]
    return await _write_all(
        services, actor, writes, atomic=batch.atomic, status=200, asked=asked, order=_by_id(batch.items)
    )


def _creation(prepared: Prepared, new: NewAnnotation) -> Write:
    return lambda tx: service.create(tx, prepared, tracking_uid=new.tracking_uid, why=new.why)


def _edit(item: Edit, prepared: Prepared) -> Write:
    why, patch = split_patch(item.patch)
    return lambda tx: service.edit(tx, item.id, prepared, patch, expected_version=item.version, why=why)


def _deletion(item: Removal, why: str) -> Write:
    return lambda tx: service.delete(tx, item.id, expected_version=item.version, why=why)


def _step(item: Removal, step: service.Step, why: str) -> Write:
    return lambda tx: service.take_step(tx, item.id, step, expected_version=item.version, why=why)


def _by_id(items: Sequence[Edit] | Sequence[Removal]) -> list[int]:
    """Rows are locked in one order by everyone: no deadlock between two batches."""
    return sorted(range(len(items)), key=lambda n: items[n].id)


async def _write_all(
    services: Services,
    actor: Actor,
    writes: Sequence[Write | Problem],
    *,
    atomic: bool,
    status: int,
    asked: Keyed | None,
    order: Sequence[int] | None = None,
) -> Answer:
    """Operations refuse before they write, so that a refused item leaves nothing behind and the others go on."""
    if atomic and any(isinstance(write, Problem) for write in writes):
        raise _refused([_result(write, status) if isinstance(write, Problem) else Result(status) for write in writes])
    async with services.db.write(actor) as tx:
        known = await claim(tx, asked)
        if known is not None:
            return known
        outcomes: dict[int, Annotation | Problem] = {}
        for number in order or range(len(writes)):
            write = writes[number]
            try:
                outcomes[number] = write if isinstance(write, Problem) else await write(tx)
            except Problem as problem:
                outcomes[number] = problem
        results = [_result(outcomes[number], status) for number in range(len(writes))]
        failed = sum(result.problem is not None for result in results)
        if atomic and failed:
            raise _refused(results)
        body = msgspec.json.encode(BatchAnswer(results, succeeded=len(results) - failed, failed=failed))
        answer = Answer(200, body, {})
        await remember(tx, asked, answer)
    return answer


def _result(outcome: Annotation | Problem, status: int) -> Result:
    if isinstance(outcome, Problem):
        return Result(outcome.status, problem=outcome.to_json())
    return Result(status, id=outcome.id, version=outcome.version)


def _refused(results: list[Result]) -> BatchRefused:
    return BatchRefused(
        "The batch is atomic and not every item passed.",
        results=results,
        failed=sum(result.problem is not None for result in results),
    )
