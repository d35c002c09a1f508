"""/api/v1/projects: projects, their members and groups, what they hold. Also /groups and /roles.

`opt["permission"]` of each route is what the operation demands; tests/access calls every operation against it.
"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.http.pages import DEFAULT_LIMIT, MAX_LIMIT, Page, decode_cursor, encode_cursor
from annotomy.projects import members, service
from annotomy.projects.roles import PERMISSIONS
from annotomy.projects.schemas import (
    Candidate,
    Group,
    Member,
    NewGroup,
    NewGroupMember,
    NewMember,
    NewProject,
    NewProjectGroup,
    NewProjectStudy,
    NewRole,
    PermissionLabel,
    Project,
    ProjectGroup,
    ProjectStudy,
    Role,
    RoleLabel,
    Roles,
)
from annotomy.services import Services

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]


@get("/", operation_id="ListProjects", opt={"permission": "own"})
async def list_projects(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    study_instance_uid: Annotated[
        str | None, QueryParameter(max_length=64, description="Only those in which one sees this study")
    ] = None,
) -> Page[Project]:
    """The projects that one is a member of."""
    async with services.db.read(actor) as tx:
        found = await service.list_projects(tx, study_instance_uid)
    return Page(items=found, next=None, total=len(found))


@post("/", operation_id="CreateProject", opt={"permission": "own"})
async def create_project(
    data: JSONBody[NewProject], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Project:
    """Create a project; one becomes its administrator."""
    async with services.db.write(actor) as tx:
        return await service.create_project(tx, name=data.name, description=data.description)


@get("/{project_id:uuid}", operation_id="GetProject", opt={"permission": "member"})
async def get_project(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Project:
    """A project and one's role in it."""
    async with services.db.read(actor) as tx:
        return await service.get_project(tx, project_id)


# -- members ----------------------------------------------------------------------------------------------------------


@get("/{project_id:uuid}/members", operation_id="ListMembers", opt={"permission": "member"})
async def list_members(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[Member]:
    """Who is a member, with role and time."""
    async with services.db.read(actor) as tx:
        found = await members.list_members(tx, project_id)
    return Page(items=found, next=None, total=len(found))


@get("/{project_id:uuid}/candidates", operation_id="FindCandidates", opt={"permission": "project.manage"})
async def find_candidates(
    project_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    search: Annotated[str, QueryParameter(description="a part of the name, two characters or more")],
) -> Page[Candidate]:
    """People and groups, by a part of their name, who can be given a role in the project."""
    async with services.db.read(actor) as tx:
        found = await members.find_candidates(tx, project_id, search)
    return Page(items=found, next=None, total=len(found))


@post("/{project_id:uuid}/members", operation_id="SetMember", opt={"permission": "project.manage"})
async def set_member(
    project_id: FromPath[UUID],
    data: JSONBody[NewMember],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Member:
    """Add a member, or change the role or the time of one."""
    async with services.db.write(actor) as tx:
        return await members.set_member(
            tx,
            project_id,
            user_id=data.user_id,
            role=data.role,
            valid_from=data.valid_from,
            expires_at=data.expires_at,
        )


@delete("/{project_id:uuid}/members/{user_id:uuid}", operation_id="RemoveMember", opt={"permission": "project.manage"})
async def remove_member(
    project_id: FromPath[UUID],
    user_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """Take a member out."""
    async with services.db.write(actor) as tx:
        await members.remove_member(tx, project_id, user_id)


@get("/{project_id:uuid}/groups", operation_id="ListProjectGroups", opt={"permission": "project.manage"})
async def list_project_groups(
    project_id: FromPath[UUID], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Page[ProjectGroup]:
    """Groups that have a role in the project."""
    async with services.db.read(actor) as tx:
        found = await members.list_project_groups(tx, project_id)
    return Page(items=found, next=None, total=len(found))


@post("/{project_id:uuid}/groups", operation_id="SetProjectGroup", opt={"permission": "project.manage"})
async def set_project_group(
    project_id: FromPath[UUID],
    data: JSONBody[NewProjectGroup],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> ProjectGroup:
    """Give everybody in a group a role in the project."""
    async with services.db.write(actor) as tx:
        return await members.set_project_group(
            tx,
            project_id,
            group_id=data.group_id,
            role=data.role,
            valid_from=data.valid_from,
            expires_at=data.expires_at,
        )


@delete(
    "/{project_id:uuid}/groups/{group_id:uuid}", operation_id="RemoveProjectGroup", opt={"permission": "project.manage"}
)
async def remove_project_group(
    project_id: FromPath[UUID],
    group_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """Take a group out, and whom it brought."""
    async with services.db.write(actor) as tx:
        await members.remove_project_group(tx, project_id, group_id)


# -- what a project holds ---------------------------------------------------------------------------------------------


@get("/{project_id:uuid}/studies", operation_id="ListProjectStudies", opt={"permission": "study.read"})
async def list_studies(
    project_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    limit: Limit = DEFAULT_LIMIT,
    cursor: FromQuery[str | None] = None,
) -> Page[ProjectStudy]:
    """What the project holds and one sees of it, newest first; total counts studies."""
    after = _position(cursor) if cursor else None
    async with services.db.read(actor) as tx:
        found, position, total = await service.list_studies(tx, project_id, limit=limit, after=after)
    return Page(items=found, next=None if position is None else encode_cursor(*position), total=total)


def _position(cursor: str) -> tuple[datetime, int]:
    moment, study_id = decode_cursor(cursor, (datetime, int))
    assert isinstance(moment, datetime)
    assert isinstance(study_id, int)
    return moment, study_id


@post("/{project_id:uuid}/studies", operation_id="AssignStudy", opt={"permission": "study.assign"})
async def assign_study(
    project_id: FromPath[UUID],
    data: JSONBody[NewProjectStudy],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> ProjectStudy:
    """Put a study, one series or one instance that one can see into the project."""
    async with services.db.write(actor) as tx:
        return await service.assign_study(
            tx,
            project_id,
            data.study_instance_uid,
            series_instance_uid=data.series_instance_uid,
            sop_instance_uid=data.sop_instance_uid,
        )


@delete(
    "/{project_id:uuid}/studies/{study_instance_uid:str}",
    operation_id="UnassignStudy",
    opt={"permission": "study.assign"},
)
async def unassign_study(
    project_id: FromPath[UUID],
    study_instance_uid: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    series_instance_uid: FromQuery[str | None] = None,
    sop_instance_uid: FromQuery[str | None] = None,
) -> None:
    """Take a study out of the project; with a series or an instance named, the assignment of that alone."""
    async with services.db.write(actor) as tx:
        await service.unassign_study(
            tx,
            project_id,
            study_instance_uid,
            series_instance_uid=series_instance_uid,
            sop_instance_uid=sop_instance_uid,
        )


# -- roles ------------------------------------------------------------------------------------------------------------


@get("/roles", operation_id="ListRoles", tags=["projects"], opt={"permission": "own"})
async def list_roles(
    actor: NamedDependency[Actor], services: NamedDependency[Services], project_id: FromQuery[UUID | None] = None
) -> Roles:
    """Roles and permissions with their labels; with a project named, its own roles as well."""
    async with services.db.read(actor) as tx:
        found = await members.list_roles(tx, project_id)
    permissions = [
        PermissionLabel(name, RoleLabel(en=label.en, ko=label.ko), label.scope) for name, label in PERMISSIONS.items()
    ]
    return Roles(items=found, permissions=permissions, total=len(found))


@post("/{project_id:uuid}/roles", operation_id="SetRole", opt={"permission": "project.manage"})
async def set_role(
    project_id: FromPath[UUID],
    data: JSONBody[NewRole],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> Role:
    """Make a role of the project's own, or change one for everybody who has it."""
    async with services.db.write(actor) as tx:
        return await members.set_role(tx, project_id, name=data.name, permissions=data.permissions, label=data.label)


@delete("/{project_id:uuid}/roles/{name:str}", operation_id="DeleteRole", opt={"permission": "project.manage"})
async def delete_role(
    project_id: FromPath[UUID],
    name: FromPath[str],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """Delete a role of the project's own that nobody has."""
    async with services.db.write(actor) as tx:
        await members.delete_role(tx, project_id, name)


# -- groups -----------------------------------------------------------------------------------------------------------


@get("/groups", operation_id="ListGroups", tags=["projects"], opt={"permission": "user.manage"})
async def list_groups(actor: NamedDependency[Actor], services: NamedDependency[Services]) -> Page[Group]:
    """All groups with their members."""
    async with services.db.read(actor) as tx:
        found = await members.list_groups(tx)
    return Page(items=found, next=None, total=len(found))


@post("/groups", operation_id="CreateGroup", tags=["projects"], opt={"permission": "user.manage"})
async def create_group(
    data: JSONBody[NewGroup], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Group:
    """Create a group."""
    async with services.db.write(actor) as tx:
        return await members.create_group(tx, data.name)


@post(
    "/groups/{group_id:uuid}/members",
    status_code=204,
    operation_id="AddToGroup",
    tags=["projects"],
    opt={"permission": "user.manage"},
)
async def add_to_group(
    group_id: FromPath[UUID],
    data: JSONBody[NewGroupMember],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """Put a user into a group."""
    async with services.db.write(actor) as tx:
        await members.add_to_group(tx, group_id, data.user_id)


@delete(
    "/groups/{group_id:uuid}/members/{user_id:uuid}",
    operation_id="RemoveFromGroup",
    tags=["projects"],
    opt={"permission": "user.manage"},
)
async def remove_from_group(
    group_id: FromPath[UUID],
    user_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> None:
    """Take a user out of a group."""
    async with services.db.write(actor) as tx:
        await members.remove_from_group(tx, group_id, user_id)


router = Router(
    path="/projects",
    tags=["projects"],
    route_handlers=[
        list_projects, create_project, get_project, list_members, find_candidates, set_member, remove_member,
        list_project_groups, set_project_group, remove_project_group,
        list_studies, assign_study, unassign_study, set_role, delete_role,
    ],
)  # fmt: skip
handlers = [list_roles, list_groups, create_group, add_to_group, remove_from_group]
"""Outside of one project, at paths of their own."""
