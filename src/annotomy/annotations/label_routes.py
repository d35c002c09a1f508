"""/api/v1/labels, and how a project works with annotations."""

from uuid import UUID

from litestar import Response, Router, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from annotomy.actor import Actor
from annotomy.annotations import labels
from annotomy.annotations.labels import LabelEdit, NewLabel, ProjectLabel
from annotomy.annotations.project_settings import get_settings, set_settings
from annotomy.annotations.routes import IfMatch
from annotomy.annotations.schemas import Settings
from annotomy.http.etags import etag, expected_version
from annotomy.http.pages import Page
from annotomy.services import Services


@get("/", operation_id="ListLabels", opt={"permission": "annotation.read"})
async def list_(
    project_id: FromQuery[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    retired: FromQuery[bool] = False,
) -> Page[ProjectLabel]:
    """A project's label set; with `retired`, what it was, too."""
    async with services.db.read(actor) as tx:
        found = await labels.list_labels(tx, project_id, retired=retired)
    return Page(items=found, next=None, total=len(found))


@post("/", operation_id="CreateLabel", opt={"permission": "project.manage"})
async def create(
    data: JSONBody[NewLabel], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[ProjectLabel]:
    async with services.db.write(actor) as tx:
        made = await labels.create_label(tx, data)
    return Response(made, status_code=201, headers={"ETag": etag(made.version)})


@get("/{label_id:uuid}", operation_id="GetLabel", opt={"permission": "annotation.read"})
async def read(
    label_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[ProjectLabel]:
    async with services.db.read(actor) as tx:
        found = await labels.get_label(tx, label_id)
    return Response(found, headers={"ETag": etag(found.version)})


@patch("/{label_id:uuid}", operation_id="EditLabel", opt={"permission": "project.manage"})
async def edit(
    label_id: FromPath[UUID],
    data: JSONBody[LabelEdit],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    if_match: IfMatch = None,
) -> Response[ProjectLabel]:
    """Change names, colour, attributes; or retire it. Annotations keep the code that they carry."""
    version = expected_version(if_match)
    async with services.db.write(actor) as tx:
        made = await labels.edit_label(tx, label_id, data, expected_version=version)
    return Response(made, headers={"ETag": etag(made.version)})


@get(
    "/{project_id:uuid}/annotation-settings",
    operation_id="GetAnnotationSettings",
    opt={"permission": "annotation.read"},
)
async def read_settings(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Settings:
    async with services.db.read(actor) as tx:
        return await get_settings(tx, project_id)


@put(
    "/{project_id:uuid}/annotation-settings", operation_id="SetAnnotationSettings", opt={"permission": "project.manage"}
)
async def write_settings(
    project_id: FromPath[UUID],
    data: JSONBody[Settings],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Settings:
    async with services.db.write(actor) as tx:
        return await set_settings(tx, project_id, data)


router = Router(path="/labels", tags=["labels"], route_handlers=[list_, create, read, edit])
settings_router = Router(path="/projects", tags=["annotations"], route_handlers=[read_settings, write_settings])
