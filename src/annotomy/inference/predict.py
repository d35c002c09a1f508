"""Predictions: asked for, looked up, cancelled. The job's row holds their state until the model has given an outcome.

So nothing has to be kept in step: a job that is cancelled in the queue, given up or rejected is a prediction that is.
"""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.db.identifiers import new_id
from annotomy.errors import BadRequest, NotFound
from annotomy.events import Event, emit
from annotomy.http.pages import decode_cursor, encode_cursor
from annotomy.inference.errors import UnknownModel
from annotomy.inference.schemas import MAX_BATCH, BatchItem, NewBatch, NewPrediction, Prediction
from annotomy.jobs.queue import Job, cancel_job, enqueue
from annotomy.ports import ModelCard, ModelRunner
from annotomy.projects.access import Permission, require, visible_series, visible_target, visible_work
from annotomy.workitems.service import create_of_prediction


class RunPrediction(Job, frozen=True):
    """Run the model and store its mask as a proposal."""

    kind: ClassVar[str] = "run-prediction"
    prediction_id: UUID


_STATE = "coalesce(p.outcome, j.state)"
_SELECT = (
    "select p.id, p.job_id, p.model, p.model_version, p.project_id, p.series_instance_uid, p.parameters,"
    f" {_STATE} as state, j.progress, case when s.state = 'proposal' then s.id end as proposal_id, p.segmentation_id,"
    " coalesce(p.problem, j.problem) as problem, p.flags, p.quality, encode(p.input_digest, 'hex') as input_digest,"
    " p.asked_by, p.created_at, j.started_at, j.finished_at"
    " from predictions p join jobs j on j.id = p.job_id left join segmentations s on s.id = p.segmentation_id"
    # Who reads a prediction sees its series in its project, and the work that came of it; what is not visible is not there.
    f" where {visible_target('p')}"
    f" and {visible_work('segmentation', 'p.project_id', 'p.asked_by')}"
)


def card_of(runners: Mapping[str, ModelRunner], model: str, version: str | None = None) -> ModelCard:
    """Raises UnknownModel."""
    runner = runners.get(model)
    card = runner.describe() if runner is not None else None
    if card is None or version not in (None, card.version):
        known = [f"{one.name} {one.version}" for one in (runner.describe() for runner in runners.values())]
        raise UnknownModel("No such model is installed in this version.", known_models=sorted(known))
    return card


async def predict(tx: WriteTx, runners: Mapping[str, ModelRunner], asked: NewPrediction) -> Prediction:
    """Enqueues one prediction. Raises NotFound for a project or series that the actor does not see, else Forbidden."""
    await require(tx, tx.actor, Permission.MODEL_RUN, asked.project_id)
    card = card_of(runners, asked.model, asked.version)
    _require_no_parameters(asked.parameters)
    await require_series(tx, asked.project_id, asked.series_instance_uid)
    prediction_id = await _enqueue(tx, card, asked.project_id, asked.series_instance_uid)
    return await get_prediction(tx, prediction_id)


async def predict_batch(tx: WriteTx, runners: Mapping[str, ModelRunner], asked: NewBatch) -> list[BatchItem]:
    """One prediction for each series, in the order asked, all or none of them; a series that cannot be had has a problem."""
    await require(tx, tx.actor, Permission.MODEL_RUN, asked.project_id)
    card = card_of(runners, asked.model, asked.version)
    _require_no_parameters(asked.parameters)
    if not 1 <= len(asked.series_instance_uids) <= MAX_BATCH:
        raise BadRequest(f"A batch names 1 to {MAX_BATCH} series.", limit_items=MAX_BATCH)
    items: list[BatchItem] = []
    for uid in dict.fromkeys(asked.series_instance_uids):
        try:
            await require_series(tx, asked.project_id, uid)
        except NotFound as problem:
            items.append(BatchItem(series_instance_uid=uid, problem=problem.to_json()))
            continue
        found = await get_prediction(tx, await _enqueue(tx, card, asked.project_id, uid))
        items.append(BatchItem(series_instance_uid=uid, id=found.id, job_id=found.job_id, state=found.state))
    return items


async def get_prediction(tx: ReadTx, prediction_id: UUID) -> Prediction:
    row = await tx.fetchrow(f"{_SELECT} and p.id = $1", prediction_id)
    if row is None:
        raise NotFound("There is no such prediction.")
    return Prediction(**dict(row))


async def list_predictions(
    tx: ReadTx,
    *,
    series_instance_uid: str | None,
    project_id: UUID | None,
    state: str | None,
    limit: int,
    cursor: str | None,
) -> tuple[list[Prediction], str | None]:
    """Newest first, and the cursor of the next page."""
    values: list[Any] = []
    conditions = ""
    wanted = [("p.series_instance_uid =", series_instance_uid), ("p.project_id =", project_id), (f"{_STATE} =", state)]
    if cursor is not None:
        wanted.append(("p.id <", UUID(str(decode_cursor(cursor, (UUID,))[0]))))
    for condition, value in wanted:
        if value is not None:
            values.append(value)
            conditions += f" and {condition} ${len(values)}"
    rows = await tx.fetch(f"{_SELECT}{conditions} order by p.id desc limit {limit + 1:d}", *values)
    found = [Prediction(**dict(row)) for row in rows[:limit]]
    return found, encode_cursor(found[-1].id) if len(rows) > limit else None


async def cancel_prediction(tx: WriteTx, prediction_id: UUID) -> Prediction:
    """By who asked for it, or who manages the project. One that has ended stays as it is."""
    found = await get_prediction(tx, prediction_id)
    if found.asked_by != tx.actor.user_id:
        await require(tx, tx.actor, Permission.PROJECT_MANAGE, found.project_id)
    await cancel_job(tx, found.job_id)
    return await get_prediction(tx, prediction_id)


async def require_series(tx: ReadTx, project_id: UUID, series_instance_uid: str) -> int:
    """The key of its study. Raises NotFound unless the project holds the series and the actor sees it there."""
    study_id: int | None = await tx.fetchval(
        f"select se.study_id from series se where se.series_instance_uid = $1 and {visible_series('se', project='$2')}"
        " order by se.id limit 1",
        series_instance_uid, project_id,
    )  # fmt: skip
    if study_id is None:
        raise NotFound("There is no such series in this project.")
    return study_id


async def _enqueue(tx: WriteTx, card: ModelCard, project_id: UUID, series_instance_uid: str) -> UUID:
    prediction_id, study_id = new_id(), await require_series(tx, project_id, series_instance_uid)
    job_id = await enqueue(tx, RunPrediction(prediction_id=prediction_id), project_id=project_id)
    await tx.execute(
        "insert into predictions (id, model, model_version, project_id, series_instance_uid, job_id, asked_by, study_id)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        prediction_id, card.name, card.version, project_id, series_instance_uid, job_id, tx.actor.user_id, study_id,
    )  # fmt: skip
    await create_of_prediction(
        tx,
        prediction_id=prediction_id,
        project_id=project_id,
        study_id=study_id,
        series_instance_uid=series_instance_uid,
        model=card.name,
        version=card.version,
    )
    await emit(tx, prediction_event("prediction.queued", prediction_id, project_id, model=card.name))
    return prediction_id


def prediction_event(event_type: str, prediction_id: UUID, project_id: UUID, **data: Any) -> Event:
    return Event(
        type=event_type, object_kind="prediction", object_id=str(prediction_id), project_id=project_id, data=data
    )


def _require_no_parameters(parameters: dict[str, Any]) -> None:
    if parameters:
        raise BadRequest("The installed models take no parameters; leave `parameters` out or empty.")
