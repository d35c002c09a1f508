"""/api/v1/interactive-sessions: hints of a person, and the mask that they mean."""

from uuid import UUID

from litestar import Response, Router, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from annotomy.actor import Actor
from annotomy.archive.volume import VolumeProblem
from annotomy.http.pages import Page
from annotomy.interactive import sessions as operations
from annotomy.interactive.errors import InteractiveFailed, NothingPointedAt, WaitingForPlace
from annotomy.interactive.schemas import Hints, InteractiveSession, NewInteractiveSession, Taken, TakenAs
from annotomy.segmentations.errors import MaskMismatch
from annotomy.services import Services

MEDIA_TYPE = "application/octet-stream"
COMPUTING = [WaitingForPlace, NothingPointedAt, InteractiveFailed, VolumeProblem]


@post("/", operation_id="BeginInteractiveSession", opt={"permission": "segmentation.write"})
async def begin(
    data: JSONBody[NewInteractiveSession], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> InteractiveSession:
    """Begin to point at things in a series. The session is yours alone, and waits while all places are taken."""
    async with services.db.write(actor) as tx:
        return await operations.begin(tx, data.project_id, data.series_instance_uid)


@get("/", operation_id="ListInteractiveSessions", opt={"permission": "own"})
async def list_own(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[InteractiveSession]:
    """Your sessions of the last day, newest first."""
    async with services.db.read(actor) as tx:
        found = await operations.list_own(tx)
    return Page(items=found, next=None, total=len(found))


@get("/{interactive_session_id:uuid}", operation_id="GetInteractiveSession", opt={"permission": "own"})
async def get_one(
    interactive_session_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> InteractiveSession:
    async with services.db.read(actor) as tx:
        return await operations.get(tx, interactive_session_id)


@put(
    "/{interactive_session_id:uuid}/hints",
    operation_id="SetInteractiveHints",
    opt={"permission": "segmentation.write", "problems": COMPUTING, "gives": [MEDIA_TYPE]},
)
async def set_hints(
    interactive_session_id: FromPath[UUID],
    data: JSONBody[Hints],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Response[bytes]:
    """Keep these hints, in place of those before, and answer the mask that they mean.

    The body is a little-endian uint32 with the length of a JSON header (`shape_kji`, `region`, `voxels`,
    `milliseconds`), the header, and the voxels of the region as packed bits, lowest bit first, in [k, j, i] order.
    """
    await operations.set_hints(services, actor, interactive_session_id, data.hints)
    return Response(await operations.mask_of(services, actor, interactive_session_id), media_type=MEDIA_TYPE)


@get(
    "/{interactive_session_id:uuid}/mask",
    operation_id="GetInteractiveMask",
    opt={"permission": "segmentation.write", "problems": COMPUTING, "gives": [MEDIA_TYPE]},
)
async def get_mask(
    interactive_session_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """The mask of the hints that are kept, as when they were set."""
    return Response(await operations.mask_of(services, actor, interactive_session_id), media_type=MEDIA_TYPE)


@post(
    "/{interactive_session_id:uuid}/take",
    status_code=200,
    operation_id="TakeInteractiveMask",
    opt={"permission": "segmentation.write", "problems": [*COMPUTING, MaskMismatch]},
)
async def take(
    interactive_session_id: FromPath[UUID],
    data: JSONBody[Taken],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> TakenAs:
    """Put the mask into a segment, as a new version of the segmentation."""
    version = await operations.take(services, actor, interactive_session_id, data)
    return TakenAs(data.segmentation_id, version)


@delete("/{interactive_session_id:uuid}", operation_id="EndInteractiveSession", opt={"permission": "own"})
async def end(
    interactive_session_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> None:
    """Give the place to who waits. Hints that were not taken are gone."""
    async with services.db.write(actor) as tx:
        await operations.end(tx, interactive_session_id)


router = Router(
    path="/interactive-sessions",
    tags=["interactive"],
    route_handlers=[begin, list_own, get_one, set_hints, get_mask, take, end],
)
