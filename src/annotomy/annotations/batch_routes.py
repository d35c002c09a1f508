"""/api/v1/annotations/batch: many in one call, with a result for each. The answer is 200 unless an atomic batch fails."""

from litestar import Response, Router, post
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import JSONBody

from annotomy.actor import Actor
from annotomy.annotations import batch
from annotomy.annotations.batch import AssignBatch, BatchAnswer, CreateBatch, DeleteBatch, EditBatch, StepBatch
from annotomy.annotations.errors import BatchRefused
from annotomy.annotations.routes import AnyRequest, IdempotencyKey, bytes_of
from annotomy.http.idempotency import Keyed, keyed
from annotomy.services import Services

ANSWER = {200: ResponseSpec(data_container=BatchAnswer, generate_examples=False)}


async def _asked(actor: Actor, path: str, key: str | None, request: AnyRequest) -> Keyed | None:
    return keyed(actor, f"POST {path}", key, await request.body()) if key else None


@post(
    "/",
    status_code=200,
    operation_id="CreateAnnotations",
    opt={"problems": [BatchRefused], "permission": "annotation.write"},
    responses=ANSWER,
)
async def create(
    data: JSONBody[CreateBatch],
    request: AnyRequest,
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    asked = await _asked(actor, "/annotations/batch", idempotency_key, request)
    return bytes_of(await batch.create_batch(services, actor, data, asked=asked))


@post(
    "/edit",
    status_code=200,
    operation_id="EditAnnotations",
    opt={"problems": [BatchRefused], "permission": "annotation.edit"},
    responses=ANSWER,
)
async def edit(
    data: JSONBody[EditBatch],
    request: AnyRequest,
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Each item names the version that it starts from and a merge patch."""
    asked = await _asked(actor, "/annotations/batch/edit", idempotency_key, request)
    return bytes_of(await batch.edit_batch(services, actor, data, asked=asked))


@post(
    "/delete",
    status_code=200,
    operation_id="DeleteAnnotations",
    opt={"problems": [BatchRefused], "permission": "annotation.delete"},
    responses=ANSWER,
)
async def remove(
    data: JSONBody[DeleteBatch],
    request: AnyRequest,
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    asked = await _asked(actor, "/annotations/batch/delete", idempotency_key, request)
    return bytes_of(await batch.delete_batch(services, actor, data, asked=asked))


@post(
    "/step",
    status_code=200,
    operation_id="ReviewAnnotations",
    opt={"problems": [BatchRefused], "permission": "annotation.edit"},
    responses=ANSWER,
)
async def step(
    data: JSONBody[StepBatch],
    request: AnyRequest,
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Submit, approve, reject or reopen each."""
    asked = await _asked(actor, "/annotations/batch/step", idempotency_key, request)
    return bytes_of(await batch.step_batch(services, actor, data, asked=asked))


@post(
    "/assign",
    status_code=200,
    operation_id="AssignAnnotations",
    opt={"problems": [BatchRefused], "permission": "review"},
    responses=ANSWER,
)
async def assign(
    data: JSONBody[AssignBatch],
    request: AnyRequest,
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    idempotency_key: IdempotencyKey = None,
) -> Response[bytes]:
    """Give each to somebody to work on next; `assigned_to` of the list finds them."""
    asked = await _asked(actor, "/annotations/batch/assign", idempotency_key, request)
    return bytes_of(await batch.assign_batch(services, actor, data, asked=asked))


router = Router(path="/annotations/batch", tags=["annotations"], route_handlers=[create, edit, remove, step, assign])
