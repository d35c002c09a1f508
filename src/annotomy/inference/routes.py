"""/api/v1/models and /api/v1/predictions"""

from typing import Annotated
from uuid import UUID

from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.http.idempotency import IdempotentRequest, once
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page
from annotomy.inference import predict as operations
from annotomy.inference.errors import ModelRefused, UnknownModel
from annotomy.inference.schemas import (
    Batch,
    Code,
    Model,
    ModelLabel,
    NewBatch,
    NewPrediction,
    Prediction,
    PredictionState,
)
from annotomy.ports import ModelCard
from annotomy.services import Services

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key", description="The same key again gives the first answer and does nothing twice."
    ),
]


@get("/", operation_id="ListModels", opt={"permission": "own"})
async def list_models(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[Model]:
    """The installed models."""
    del actor  # every user may know what models there are
    found = [_model(runner.describe()) for _, runner in sorted(services.runners.items())]
    return Page(items=found, next=None, total=len(found))


@get("/{name:str}", operation_id="GetModel", opt={"permission": "own"})
async def get_model(name: FromPath[str], actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Model:
    """A model's card: what it is for, what it answers, what it was trained on."""
    del actor
    return _model(operations.card_of(services.runners, name))


@post(
    "/",
    status_code=202,
    operation_id="Predict",
    opt={"problems": [ModelRefused, UnknownModel], "permission": "model.run"},
)
async def predict(
    data: JSONBody[NewPrediction],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Response[Prediction]:
    """Have a model segment a series; the result is a proposal."""
    request = IdempotentRequest(idempotency_key, "Predict", data)
    async with services.db.write(actor) as tx:
        found = await once(tx, request, Prediction, lambda: operations.predict(tx, services.runners, data))
    return Response(found, status_code=202, headers={"Location": f"/api/v1/predictions/{found.id}"})


@post(
    "/batch",
    status_code=202,
    operation_id="PredictBatch",
    opt={"problems": [ModelRefused, UnknownModel], "permission": "model.run"},
)
async def predict_batch(
    data: JSONBody[NewBatch],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Batch:
    """Have a model segment many series: one prediction for each, or the reason why not."""
    request = IdempotentRequest(idempotency_key, "PredictBatch", data)

    async with services.db.write(actor) as tx:

        async def enqueue_all() -> Batch:
            return Batch(await operations.predict_batch(tx, services.runners, data))

        return await once(tx, request, Batch, enqueue_all)


@get("/", operation_id="ListPredictions", opt={"permission": "segmentation.read"})
async def list_predictions(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    series_instance_uid: FromQuery[str | None] = None,
    project_id: FromQuery[UUID | None] = None,
    prediction_state: Annotated[PredictionState | None, QueryParameter(name="state")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: FromQuery[str | None] = None,
) -> Page[Prediction]:
    """Predictions on series that one sees, newest first."""
    async with services.db.read(actor) as tx:
        found, following = await operations.list_predictions(
            tx,
            series_instance_uid=series_instance_uid,
            project_id=project_id,
            state=prediction_state,
            limit=limit,
            cursor=cursor,
        )
    return Page(items=found, next=following, total=None)


@get("/{prediction_id:uuid}", operation_id="GetPrediction", opt={"permission": "segmentation.read"})
async def get_prediction(
    prediction_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Prediction:
    async with services.db.read(actor) as tx:
        return await operations.get_prediction(tx, prediction_id)


@post("/{prediction_id:uuid}/cancel", status_code=200, operation_id="CancelPrediction", opt={"permission": "model.run"})
async def cancel_prediction(
    prediction_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Prediction:
    """Stop a prediction; one that waits never begins, one that has ended stays as it is."""
    async with services.db.write(actor) as tx:
        return await operations.cancel_prediction(tx, prediction_id)


def _model(card: ModelCard) -> Model:
    labels = [ModelLabel(label.number, label.name, Code(*label.code), label.color) for label in card.labels]
    return Model(
        name=card.name,
        version=card.version,
        title=card.title,
        description=card.intended_use,
        modalities=list(card.modalities),
        labels=labels,
        licence=card.licence,
        details=card.details,
    )


routers = [
    Router(path="/models", tags=["inference"], route_handlers=[list_models, get_model]),
    Router(
        path="/predictions",
        tags=["inference"],
        route_handlers=[predict, predict_batch, list_predictions, get_prediction, cancel_prediction],
    ),
]
