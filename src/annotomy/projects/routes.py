"""/api/v1/projects"""

from uuid import UUID

from litestar import Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from annotomy.actor import Actor
from annotomy.http.pages import Page
from annotomy.projects import service
from annotomy.projects.schemas import Member, NewMember, NewProject, NewProjectStudy, Project, ProjectStudy
from annotomy.services import Services


@get("/", operation_id="ListProjects")
async def list_projects(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[Project]:
    """The projects that one is a member of."""
    async with services.db.read(actor) as tx:
        found = await service.list_projects(tx)
    return Page(items=found, next=None, total=len(found))


@post("/", operation_id="CreateProject")
async def create_project(
    data: JSONBody[NewProject], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Project:
    """Create a project; one becomes its administrator."""
    async with services.db.write(actor) as tx:
        return await service.create_project(tx, name=data.name, description=data.description)


@get("/{project_id:uuid}", operation_id="GetProject")
async def get_project(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Project:
    async with services.db.read(actor) as tx:
        return await service.get_project(tx, project_id)


@get("/{project_id:uuid}/members", operation_id="ListMembers")
async def list_members(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[Member]:
    async with services.db.read(actor) as tx:
        found = await service.list_members(tx, project_id)
    return Page(items=found, next=None, total=len(found))


@post("/{project_id:uuid}/members", operation_id="SetMember")
async def set_member(
    project_id: FromPath[UUID],
    data: JSONBody[NewMember],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Member:
    """Add a member, or change the role of one."""
    async with services.db.write(actor) as tx:
        return await service.set_member(
            tx, project_id, user_id=data.user_id, role=data.role, expires_at=data.expires_at
        )


@delete("/{project_id:uuid}/members/{user_id:uuid}", operation_id="RemoveMember")
async def remove_member(
    project_id: FromPath[UUID],
    user_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    async with services.db.write(actor) as tx:
        await service.remove_member(tx, project_id, user_id)


@get("/{project_id:uuid}/studies", operation_id="ListProjectStudies")
async def list_studies(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[ProjectStudy]:
    async with services.db.read(actor) as tx:
        found = await service.list_studies(tx, project_id)
    return Page(items=found, next=None, total=len(found))


@post("/{project_id:uuid}/studies", operation_id="AssignStudy")
async def assign_study(
    project_id: FromPath[UUID],
    data: JSONBody[NewProjectStudy],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> ProjectStudy:
    """Put a study that one can see into the project."""
    async with services.db.write(actor) as tx:
        return await service.assign_study(tx, project_id, data.study_instance_uid)


@delete("/{project_id:uuid}/studies/{study_instance_uid:str}", operation_id="UnassignStudy")
async def unassign_study(
    project_id: FromPath[UUID],
    study_instance_uid: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    async with services.db.write(actor) as tx:
        await service.unassign_study(tx, project_id, study_instance_uid)


router = Router(
    path="/projects",
    tags=["projects"],
    route_handlers=[
        list_projects, create_project, get_project, list_members, set_member, remove_member,
        list_studies, assign_study, unassign_study,
    ],
)  # fmt: skip
