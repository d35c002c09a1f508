"""/api/v1/events: the feed as server-sent events and as pages."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Stream

from annotomy.actor import Actor
from annotomy.collaboration.feed import FeedEvent, number_new_events, read_feed
from annotomy.collaboration.live import LiveUpdates
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT
from annotomy.http.peer import address_of
from annotomy.http.streams import position_told
from annotomy.services import Services


class EventPage(msgspec.Struct, frozen=True):
    items: list[FeedEvent]
    next: int | None
    """Pass as `after` to go on; null at the end of what has happened so far."""


@get(
    "/",
    operation_id="StreamEvents",
    media_type="text/event-stream",
    opt={"permission": "own", "exclude_from_compression": True},
)
async def stream_events(
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    live: NamedDependency[LiveUpdates],
    project_id: Annotated[UUID | None, QueryParameter(description="Only what happens in this project.")] = None,
) -> Stream:
    """What happens from now on, or after `Last-Event-ID`, as server-sent events."""
    after = position_told(request)
    authenticator = request.app.state.authenticator
    header = request.headers.get("authorization")
    address = address_of(request, services.settings.http)
    draining = request.scope.get("state", {}).get("draining")
    pieces = live.stream(
        actor,
        after=after,
        project_id=project_id,
        still_allowed=lambda: authenticator.from_header(header, address),
        draining=lambda: draining is not None and draining.is_set(),
    )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Stream(pieces, media_type="text/event-stream", headers=headers)


@get("/log", operation_id="ListEvents", opt={"permission": "own"})
async def list_events(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    after: Annotated[int, QueryParameter(ge=0, description="Position to go on from.")] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    project_id: Annotated[UUID | None, QueryParameter()] = None,
    object_id: Annotated[str | None, QueryParameter(description="Only what happened to this object.")] = None,
) -> EventPage:
    """What happened after a position, oldest first. Nothing appears later at an earlier position."""
    await number_new_events(services.db)
    async with services.db.read(actor) as tx:
        found = await read_feed(tx, after=after, limit=limit, project_id=project_id, object_id=object_id)
    return EventPage(items=found, next=found[-1].seq if len(found) == limit else None)


router = Router(path="/events", tags=["collaboration"], route_handlers=[stream_events, list_events])
