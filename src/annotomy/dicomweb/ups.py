"""UPS-RS (PS3.18 11): the worklist over the operations of `workitems/`. Who is told of changes: `ups_events.py`."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from annotomy.actor import Actor
from annotomy.errors import BadRequest, Conflict, NotFound, TooLarge, Unsupported
from annotomy.services import Services
from annotomy.workitems.errors import WorkitemNotYours, WorkitemRefused
from annotomy.workitems.search import search_workitems
from annotomy.workitems.service import (
    change_state,
    create_workitem,
    get_workitem,
    request_cancellation,
    update_workitem,
)
from annotomy.workitems.states import WORDS

DICOM_JSON = "application/dicom+json"
DEFAULT_LIMIT = 100
_CONTROLS = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept"})
_NO_STORE = {"Cache-Control": "no-store"}
_TAGS = ["dicomweb"]
_CHANGES: dict[str, Any] = {
    "takes": [DICOM_JSON],
    "problems": [BadRequest, NotFound, Conflict, TooLarge, Unsupported, WorkitemRefused, WorkitemNotYours],
}


@post(
    "/dicom-web/workitems",
    operation_id="CreateWorkitem",
    opt=_CHANGES | {"permission": "workitem.schedule"},
    status_code=201,
    tags=_TAGS,
)
async def create(
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    project_id: Annotated[UUID | None, QueryParameter(description="Its project; else that of the API key.")] = None,
) -> Response[None]:
    """Create a workitem: `?workitem=UID`, `?UID`, or a UID of our making. Its first input's study says who sees it."""
    named = request.query_params.get("workitem") or next(
        (name for name in request.query_params if name[:1].isdigit()), None
    )
    project = project_id or actor.project_id
    if project is None:
        raise BadRequest("Name the project: project_id.")
    body = await _body(request)
    async with services.db.write(actor) as tx:
        workitem_uid = await create_workitem(tx, project, named, body)
    return Response(None, status_code=201, headers={"Location": f"/dicom-web/workitems/{workitem_uid}"})


@get(
    "/dicom-web/workitems",
    operation_id="SearchWorkitems",
    opt={"permission": "study.read", "audit": "workitem.searched", "gives": [DICOM_JSON], "problems": [BadRequest]},
    tags=_TAGS,
)
async def search(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """Search workitems. Any attribute is a key; one inside of a sequence is written with a dot."""
    match = {name: value for name, value in request.query_params.items() if name not in _CONTROLS}
    limit, offset = (_whole(request, name, default) for name, default in (("limit", DEFAULT_LIMIT), ("offset", 0)))
    async with services.db.read(actor) as tx:
        found, more = await search_workitems(tx, match, limit=limit, offset=offset)
    warning = {"Warning": '299 annotomy "There are additional results that can be requested."'} if more else {}
    return _json([one.to_json() for one in found], _NO_STORE | warning)


@get(
    "/dicom-web/workitems/{workitem_uid:str}",
    operation_id="RetrieveWorkitem",
    opt={"permission": "study.read", "audit": "workitem.read", "gives": [DICOM_JSON], "problems": [NotFound]},
    tags=_TAGS,
)
async def retrieve(
    workitem_uid: FromPath[str], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """The workitem, without its Transaction UID."""
    async with services.db.read(actor) as tx:
        found = await get_workitem(tx, workitem_uid)
    return _json([found.to_json()], _NO_STORE)


@post(
    "/dicom-web/workitems/{workitem_uid:str}",
    operation_id="UpdateWorkitem",
    opt=_CHANGES | {"permission": "workitem.perform"},
    status_code=200,
    tags=_TAGS,
)
async def update(
    request: Request[Any, Any, Any],
    workitem_uid: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Set attributes. Of a claimed one only with its Transaction UID: `?transaction=UID`, `?UID`, or in the data set."""
    body = await _body(request)
    async with services.db.write(actor) as tx:
        await update_workitem(tx, workitem_uid, body, _transaction(request))
    return Response(None, status_code=200)


@put(
    "/dicom-web/workitems/{workitem_uid:str}/state",
    operation_id="ChangeWorkitemState",
    opt=_CHANGES | {"permission": "workitem.perform"},
    status_code=200,
    tags=_TAGS,
)
async def change(
    request: Request[Any, Any, Any],
    workitem_uid: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Claim it (IN PROGRESS) with a Transaction UID of one's own, and end it (COMPLETED, CANCELED) with the same."""
    body = await _body(request)
    async with services.db.write(actor) as tx:
        status = await change_state(tx, workitem_uid, body, services.clock.now(), _transaction(request))
    return _done(200, status)


@post(
    "/dicom-web/workitems/{workitem_uid:str}/cancelrequest",
    operation_id="RequestWorkitemCancellation",
    opt=_CHANGES | {"permission": "workitem.schedule"},
    status_code=202,
    tags=_TAGS,
)
async def cancel(
    request: Request[Any, Any, Any],
    workitem_uid: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Ask for its end: one that waits is canceled, of one in progress the performer is told."""
    body = await _body(request)
    async with services.db.write(actor) as tx:
        status = await request_cancellation(tx, workitem_uid, body, services.clock.now())
    return _done(202, status)


async def _body(request: Request[Any, Any, Any]) -> bytes:
    kind = request.headers.get("content-type", DICOM_JSON).partition(";")[0].strip().lower()
    if kind not in (DICOM_JSON, "application/json"):
        raise Unsupported("A workitem is sent as application/dicom+json.")
    return await request.body()


def _transaction(request: Request[Any, Any, Any]) -> str | None:
    query = request.query_params
    return query.get("transaction") or next((name for name in query if name[:1].isdigit()), None)


def _json(items: list[dict[str, Any]], headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(items), media_type=DICOM_JSON, headers=headers)


def _done(status_code: int, status: int) -> Response[None]:
    """A warning of PS3.4 is one of HTTP as well (PS3.18 11.7.3, 11.8.3)."""
    headers = {"Warning": f'299 annotomy "{status:04X}: {WORDS[status]}"'} if status else {}
    return Response(None, status_code=status_code, headers=headers)


def _whole(request: Request[Any, Any, Any], name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"{name} takes a whole number, 0 or more.")
    return int(text)


handlers = [create, search, retrieve, update, change, cancel]
