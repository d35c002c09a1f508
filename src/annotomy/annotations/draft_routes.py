"""/api/v1/annotations/drafts: one's own unfinished work."""

from typing import Annotated, Any

from litestar import Request, Router, delete, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from annotomy.actor import Actor
from annotomy.annotations.drafts import Draft, DraftEntry, delete_draft, get_draft, list_drafts, save_draft
from annotomy.annotations.schemas import Uid
from annotomy.http.pages import Page
from annotomy.services import Services

Study = Annotated[Uid, QueryParameter(name="study_instance_uid", description="The study that is worked on.")]


@put("/{key:str}", operation_id="SaveAnnotationDraft", opt={"takes": ["application/json"], "permission": "own"})
async def save(
    key: FromPath[str],
    request: Request[Any, Any, Any],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    study: Study,
) -> DraftEntry:
    """Keep any JSON under a key and a study; the newest save stands."""
    content = await request.body()
    async with services.db.write(actor) as tx:
        return await save_draft(tx, study, key, content)


@get("/{key:str}", operation_id="GetAnnotationDraft", opt={"permission": "own"})
async def read(
    key: FromPath[str], actor: NamedDependency[Actor], services: NamedDependency[Services], study: Study
) -> Draft:
    async with services.db.read(actor) as tx:
        return await get_draft(tx, study, key)


@get("/", operation_id="ListAnnotationDrafts", opt={"permission": "own"})
async def list_(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    study_instance_uid: FromQuery[str | None] = None,
) -> Page[DraftEntry]:
    async with services.db.read(actor) as tx:
        found = await list_drafts(tx, study_instance_uid)
    return Page(items=found, next=None, total=len(found))


@delete("/{key:str}", operation_id="DeleteAnnotationDraft", opt={"permission": "own"})
async def remove(
    key: FromPath[str], actor: NamedDependency[Actor], services: NamedDependency[Services], study: Study
) -> None:
    async with services.db.write(actor) as tx:
        await delete_draft(tx, study, key)


router = Router(path="/annotations/drafts", tags=["annotations"], route_handlers=[save, read, list_, remove])
