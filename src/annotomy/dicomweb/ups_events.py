"""Subscriptions of UPS-RS (PS3.18 11.10 to 11.13) and the event reports of a subscriber, as server-sent events.

The standard sends reports over WebSocket. Here they come over the live feed: the same data sets, one each event.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from annotomy.actor import Actor
from annotomy.collaboration.feed import FeedEvent
from annotomy.collaboration.live import LiveUpdates
from annotomy.errors import BadRequest, NotFound
from annotomy.http.peer import address_of
from annotomy.http.streams import position_told
from annotomy.services import Services
from annotomy.workitems.attributes import STATE, UPS_PUSH, code
from annotomy.workitems.service import Workitem, get_workitem
from annotomy.workitems.subscriptions import followed, is_told, subscribe, suspend, unsubscribe

_SUBSCRIBER: Final = "/dicom-web/workitems/{workitem_uid:str}/subscribers/{ae_title:str}"
_TAGS = ["dicomweb"]
_SUBSCRIBES = {"permission": "study.read", "problems": [BadRequest, NotFound]}
_STATE_REPORT, _CANCEL_REQUESTED, _PROGRESS_REPORT = 1, 2, 3
_EVENT_TYPES: Final = {
    "workitem.created": _STATE_REPORT,
    "workitem.state-changed": _STATE_REPORT,
    "workitem.cancel-requested": _CANCEL_REQUESTED,
    "workitem.updated": _PROGRESS_REPORT,
}
"""PS3.4 Table CC.2.4-1."""


@post(_SUBSCRIBER, operation_id="SubscribeToWorkitem", opt=_SUBSCRIBES, status_code=201, tags=_TAGS)
async def subscribe_to(
    request: Request[Any, Any, Any],
    workitem_uid: FromPath[str],
    ae_title: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Be told of a workitem, of all (1.2.840.10008.5.1.4.34.5) or of those that match `filter` (...34.5.1)."""
    keys = dict[str, str]()
    for one in request.query_params.getall("filter", []):
        for pair in one.split(","):
            name, sign, value = pair.partition("=")
            if not sign:
                raise BadRequest("filter takes KEY=VALUE, several separated by commas.")
            keys[name] = value
    async with services.db.write(actor) as tx:
        await subscribe(tx, ae_title, workitem_uid, keys)
    return Response(None, status_code=201, headers={"Content-Location": f"/dicom-web/subscribers/{ae_title}"})


@delete(_SUBSCRIBER, operation_id="UnsubscribeFromWorkitem", opt=_SUBSCRIBES, status_code=200, tags=_TAGS)
async def unsubscribe_from(
    workitem_uid: FromPath[str],
    ae_title: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """No longer be told of it."""
    async with services.db.write(actor) as tx:
        await unsubscribe(tx, ae_title, workitem_uid)
    return Response(None, status_code=200)


@post(
    _SUBSCRIBER + "/suspend",
    operation_id="SuspendSubscription",
    opt=_SUBSCRIBES,
    status_code=200,
    tags=_TAGS,
)
async def suspend_of(
    workitem_uid: FromPath[str],
    ae_title: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[None]:
    """Keep a global subscription to what there is, and leave out what is created from now on."""
    async with services.db.write(actor) as tx:
        await suspend(tx, ae_title, workitem_uid)
    return Response(None, status_code=200)


@get(
    "/dicom-web/subscribers/{ae_title:str}",
    operation_id="StreamWorkitemEvents",
    media_type="text/event-stream",
    opt={"permission": "study.read", "exclude_from_compression": True, "problems": [BadRequest, NotFound]},
    tags=_TAGS,
)
async def reports(
    request: Request[Any, Any, Any],
    ae_title: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    live: NamedDependency[LiveUpdates],
) -> Stream:
    """The event reports of a subscriber from now on, or after `Last-Event-ID`, as server-sent events."""
    after = position_told(request)
    async with services.db.read(actor) as tx:
        one_by_one = await followed(tx, ae_title)
    authenticator, address = request.app.state.authenticator, address_of(request, services.settings.http)
    header = request.headers.get("authorization")
    draining = request.scope.get("state", {}).get("draining")

    async def shape(event: FeedEvent) -> bytes | None:
        return await _report(services, actor, ae_title, event)

    async def pieces() -> AsyncIterator[bytes]:
        if after is None:  # CC.2.3.3: who subscribes is told the state as it is
            for workitem_uid in one_by_one:
                yield await _now(services, actor, workitem_uid)
        async for piece in live.stream(
            actor,
            after=after,
            project_id=None,
            still_allowed=lambda: authenticator.from_header(header, address),
            draining=lambda: draining is not None and draining.is_set(),
            shape=shape,
        ):
            yield piece

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(pieces(), media_type="text/event-stream", headers=headers)


async def _report(services: Services, actor: Actor, ae_title: str, event: FeedEvent) -> bytes | None:
    """The report of an event, to who subscribed to its workitem and sees it. A prediction's events are its workitem's."""
    if event.object.kind == "prediction":
        workitem_uid, kind = f"2.25.{int(event.object.id.replace('-', ''), 16)}", _STATE_REPORT
    elif event.type in _EVENT_TYPES:
        workitem_uid, kind = event.object.id, _EVENT_TYPES[event.type]
    else:
        return None
    async with services.db.read(actor) as tx:
        try:
            found = await get_workitem(tx, workitem_uid)
        except NotFound:
            return None
        if not await is_told(tx, ae_title, found):
            return None
    report = _data_set(found, kind, event.seq) | _told(found, kind, event)
    return b"id: %d\n%s" % (event.seq, _framed(report))


async def _now(services: Services, actor: Actor, workitem_uid: str) -> bytes:
    async with services.db.read(actor) as tx:
        try:
            found = await get_workitem(tx, workitem_uid)
        except NotFound:  # seen no more
            return b": no longer there\n\n"
    return _framed(_data_set(found, _STATE_REPORT, 0) | _told(found, _STATE_REPORT, None))


def _data_set(found: Workitem, kind: int, position: int) -> dict[str, Any]:
    """Of every report (PS3.18 11.13.2)."""
    return {
        "00000002": {"vr": "UI", "Value": [UPS_PUSH]},
        "00000110": {"vr": "US", "Value": [position % (1 << 16)]},
        "00001000": {"vr": "UI", "Value": [found.workitem_uid]},
        "00001002": {"vr": "US", "Value": [kind]},
    }


def _told(found: Workitem, kind: int, event: FeedEvent | None) -> dict[str, Any]:
    """What the kind adds (PS3.4 Table CC.2.4-1)."""
    if kind == _CANCEL_REQUESTED:
        data = event.data if event is not None else {}
        value, scheme = str(data.get("reason_code", "")), str(data.get("reason_scheme", ""))
        return {"0074100E": code(value, scheme, value)} if value else {}
    if kind == _PROGRESS_REPORT:
        return {tag: found.attributes[tag] for tag in ("00741002",) if tag in found.attributes}
    state = event.data.get("state", found.state) if event is not None else found.state
    readiness = {tag: found.attributes[tag] for tag in ("00404041",) if tag in found.attributes}
    return {STATE: {"vr": "CS", "Value": [state]}, **readiness}


def _framed(report: dict[str, Any]) -> bytes:
    return b"event: workitem\ndata: %s\n\n" % msgspec.json.encode(report)


handlers = [subscribe_to, unsubscribe_from, suspend_of, reports]
